"""Requests for a lease: of a slot, or of a task's share in the slot of its execution."""

from __future__ import annotations

import os
import secrets
import socket
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from functools import cache

from cloudrun_jobs import environ
from cloudrun_jobs.exceptions import LockUnknown
from cloudrun_jobs.locks.base import Grant, Holder, LockBackend, Owner
from cloudrun_jobs.locks.names import LockName

# How long an execution keeps its slot while none of its tasks runs, in leases of the backend.
IDLE_EXECUTION_LEASES = 5


def new_owner() -> Owner:
    """Return this process as the owner of one new request."""
    task = environ.current_task()
    if task is None:
        return Owner(holder=_process(os.getpid()), nonce=secrets.token_hex(16))
    return Owner(holder=task.execution, index=task.index, attempt=task.attempt, nonce=secrets.token_hex(16))


@cache
def _process(pid: int) -> str:
    # The random part: process ids are reused, and those of containers are all alike.
    return f"local:{socket.gethostname()[:100]}:{pid}:{secrets.token_hex(6)}"


class LockRequest(ABC):
    """One request for a lock, which may be repeated."""

    grant: Grant  # Once acquired.
    tasks = 1  # The tasks that share the lock, and free it with the last one's release.
    is_held = False  # Acquired, and not known to be released.
    is_free = True  # Known to hold nothing, also nothing that the tasks of the execution share.

    def __init__(
        self, backend: LockBackend, name: LockName, slots: int, owner: Owner, ttl: float | None = None
    ) -> None:
        self.backend = backend
        self.name = name
        self.slots = slots
        self.owner = owner
        self.ttl = ttl or backend.lease  # Seconds.

    def acquire(self) -> Sequence[Holder] | None:
        """Acquire the lock, or return its holders."""
        try:
            holders = self._acquire()
        except LockUnknown:
            self.is_free = False
            raise
        self.is_held = holders is None
        return holders

    @abstractmethod
    def _acquire(self) -> Sequence[Holder] | None: ...

    def renewals(self) -> Sequence[tuple[Grant, float]]:
        """Return each grant to renew, and for how many seconds."""
        return [(self.grant, self.ttl)]

    def renew(self) -> bool:
        """Extend the lease; return False if it had ended."""
        return all(self.backend.renew(grant, ttl) for grant, ttl in self.renewals())

    def release(self, *, finished: bool) -> bool:
        """Release the lock; return False if it was lost before. May be repeated."""
        released = self._release(finished)
        self.is_held = False
        return released

    def _release(self, finished: bool) -> bool:
        released = self.backend.release(self.grant)
        self.is_free = True
        return released


class SlotRequest(LockRequest):
    """A slot for one holder."""

    def _acquire(self) -> Sequence[Holder] | None:
        answer = self.backend.acquire(self.name, self.slots, self.owner, self.ttl)
        self.is_free = not isinstance(answer, Grant)
        if not isinstance(answer, Grant):
            return answer
        self.grant = answer
        return None


class TaskRequest(LockRequest):
    """A slot that all tasks of an execution share, and in it this task's own lock.

    The slot is requested in the name of the execution, so each task gets the same one, and renews it. It is free
    when all tasks are done, or when none has run for a while: tasks may come in waves.
    """

    is_free = False  # Other tasks may hold the slot.

    def __init__(
        self, backend: LockBackend, name: LockName, slots: int, owner: Owner, ttl: float | None, tasks: int
    ) -> None:
        super().__init__(backend, name, slots, owner, ttl)
        self.tasks = tasks
        # A long lease of the job does not make the next task start later.
        self._shared_ttl = max(self.ttl, backend.lease * IDLE_EXECUTION_LEASES)

    def _acquire(self) -> Sequence[Holder] | None:
        execution = replace(self.owner, nonce=f"execution:{self.owner.holder}", index=0, attempt=0)
        shared = self.backend.acquire(self.name, self.slots, execution, self._shared_ttl)
        if not isinstance(shared, Grant):
            return shared
        index = self.owner.index
        own = self.backend.acquire(self.name.part(f"{shared.slot}/{index}", f"[{index}]"), 1, self.owner, self.ttl)
        if not isinstance(own, Grant):
            return own
        self._shared, self.grant = shared, own
        return None

    def renewals(self) -> Sequence[tuple[Grant, float]]:
        return [*super().renewals(), (self._shared, self._shared_ttl)]

    def _release(self, finished: bool) -> bool:
        released = self.backend.release(self.grant)
        if finished and released:
            self.is_free = self.backend.complete_task(self._shared, self.owner.index, self.tasks)
        return released
