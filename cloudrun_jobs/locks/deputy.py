"""A process that renews leases in this one's stead: for work that holds the interpreter's lock for minutes.

It is started anew, not forked, reads its orders from a pipe, and ends with the pipe: when this process has given
the locks back, or died. The deadlines that it reaches stand in memory that both share, so that they hold for a
process that was deaf meanwhile.
"""

from __future__ import annotations

import json
import math
import mmap
import os
import resource
import select
import signal
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from typing import IO, Any

from cloudrun_jobs import environ
from cloudrun_jobs.exceptions import InvalidSettings
from cloudrun_jobs.locks.base import Grant, LockBackend, Owner
from cloudrun_jobs.locks.lease import GONE, MARGIN, Lease
from cloudrun_jobs.locks.names import LockName
from cloudrun_jobs.locks.requests import LockRequest

MODULE = "cloudrun_jobs.locks.deputy"
LOOK = 1.0  # Seconds between two looks at whether the parent is still there.
PLACE = struct.Struct("d")  # Written and read in one piece, as long as it stands at a multiple of its size.


class Deputy:
    """The deputy of this process, for some leases, until a moment of the monotonic clock."""

    def __init__(self, leases: Sequence[Lease], until: float, wake: int | None) -> None:
        """Let a process renew the leases, and send this one the signal `wake`, if any, when one is lost."""
        settings = os.environ.get("DJANGO_SETTINGS_MODULE")
        if not settings:
            raise InvalidSettings(
                "heartbeat = 'process': the other process finds its settings by DJANGO_SETTINGS_MODULE, "
                "which is not set."
            )
        with _shared_file() as file:
            file.write(b"".join(PLACE.pack(lease.deadline) for lease in leases))
            file.flush()
            self._memory = mmap.mmap(file.fileno(), PLACE.size * len(leases))
            self._process, self._pipe = _start(file.fileno())
        os.write(self._pipe, _orders([lease.claim for lease in leases], until, wake))
        for place, lease in enumerate(leases):
            lease.entrust(partial(self._deadline, place), until)

    def dismiss(self) -> None:
        """End it, so that nobody renews what is given back."""
        os.close(self._pipe)
        self._process.kill()
        self._process.wait()

    def _deadline(self, place: int) -> float:
        deadline: float = PLACE.unpack_from(self._memory, place * PLACE.size)[0]
        return deadline


def _shared_file() -> IO[bytes]:
    if hasattr(os, "memfd_create"):
        return os.fdopen(os.memfd_create("cloudrun_jobs"), "w+b")
    return tempfile.TemporaryFile()


def _start(memory: int) -> tuple[subprocess.Popen[bytes], int]:
    """Return the process, and where it reads its orders and learns of our end."""
    orders, pipe = os.pipe()
    try:
        process = subprocess.Popen(  # noqa: S603  (our own module)
            [sys.executable, "-m", MODULE, str(memory)],
            stdin=orders,
            pass_fds=[memory],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            # What a terminal sends to all is for the parent to act on.
            start_new_session=True,
        )
    finally:
        os.close(orders)
    return process, pipe


def _orders(claims: Sequence[LockRequest], until: float, wake: int | None) -> bytes:
    orders = {
        "until": until,
        "wake": wake,
        "may_kill": environ.in_container(),
        "claims": [
            {"label": claim.name.label, "kept": [[asdict(grant), ttl] for grant, ttl in claim.kept()]}
            for claim in claims
        ],
    }
    return json.dumps(orders).encode() + b"\n"


class Entrusted(LockRequest):
    """In the other process: what is to be renewed of a claim that was made in the first."""

    def __init__(self, backend: LockBackend, label: str, kept: Sequence[tuple[Grant, float]]) -> None:
        self._kept = kept
        self.grant, ttl = kept[0]
        owner = Owner(holder="", nonce=self.grant.nonce)
        super().__init__(backend, LockName(key=self.grant.lock, label=label), 1, owner)
        self.ttl = ttl

    def take(self) -> None:
        """It is taken."""

    def kept(self) -> Sequence[tuple[Grant, float]]:
        return self._kept


class Reporter:
    """In the other process: writes down how a lease fares, and wakes the parent when it is lost."""

    def __init__(self, memory: mmap.mmap, place: int, parent: int, wake: int | None) -> None:
        self._memory = memory
        self._place = place * PLACE.size
        self._parent = parent
        self._wake = wake

    def renewed(self, lease: Lease) -> None:
        PLACE.pack_into(self._memory, self._place, lease.deadline)

    def lost(self, lease: Lease) -> None:
        PLACE.pack_into(self._memory, self._place, GONE)
        if self._wake and os.getppid() == self._parent:
            os.kill(self._parent, self._wake)


def serve(orders: dict[str, Any], memory: mmap.mmap, backend: LockBackend, parent: int) -> None:
    """Renew until the parent ends, or is to be ended."""
    leases = []
    for place, said in enumerate(orders["claims"]):
        claim = Entrusted(backend, said["label"], [(Grant(**grant), ttl) for grant, ttl in said["kept"]])
        deadline: float = PLACE.unpack_from(memory, place * PLACE.size)[0]
        leases.append(Lease(claim, deadline - claim.ttl * (1 - MARGIN)))
        leases[-1].watch(Reporter(memory, place, parent, orders["wake"]))
    ends = math.inf
    while os.getppid() == parent and not select.select([sys.stdin], [], [], LOOK)[0]:
        now = time.monotonic()
        if now >= orders["until"]:
            for lease in leases:
                lease.mark_lost("the task's time is up")
        if any(lease.lost.is_set() for lease in leases):
            ends = min(ends, *(lease.kill_deadline for lease in leases))
        if now >= ends and orders["may_kill"]:
            _end(parent)


def _end(parent: int) -> None:
    os.kill(parent, signal.SIGKILL)
    # Process 1 of a container gets no signal that it does not handle, but for the kernel's own.
    resource.prlimit(parent, resource.RLIMIT_CPU, (1, 1))


def main(memory: int) -> None:
    """Read the orders, then serve. Of the project's apps this process needs the locks' alone."""
    parent = os.getppid()
    orders = json.loads(sys.stdin.readline())
    from django.apps import apps

    apps.populate(["cloudrun_jobs"])
    from cloudrun_jobs.locks.configured import current

    with suppress(ProcessLookupError):  # Whom it was to end had ended.
        serve(orders, mmap.mmap(memory, 0), current(), parent)


if __name__ == "__main__":
    main(int(sys.argv[1]))
