"""Leases that another process renews: through deafness of the first, and the death of either."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from cloudrun_jobs.exceptions import InvalidSettings
from cloudrun_jobs.locks import LockManager
from cloudrun_jobs.locks.deputy import Deputy
from tests.locks.conftest import JOB_LEASE
from tests.locks.workers import Worker, until

pytestmark = pytest.mark.faults

HELD = 12  # Seconds for which the interpreter's lock is held.


def deputy_of(worker: Worker) -> int:
    """Wait until the process that renews is there, and return its number."""
    children = Path(f"/proc/{worker.process.pid}/task/{worker.process.pid}/children")
    pid = int(until(lambda: children.read_text().split())[0])
    # Until it is another program, it is its parent once more.
    until(
        lambda: (
            Path(f"/proc/{pid}/cmdline").read_bytes() != Path(f"/proc/{worker.process.pid}/cmdline").read_bytes()
        )
    )
    return pid


def has_expired(pid: int) -> bool:
    path = Path(f"/proc/{pid}/stat")
    return not path.exists() or ") Z " in path.read_text()


@pytest.mark.parametrize("kind", ["redis", "postgres", "sqlite"])
def test_a_lease_outlives_deafness(journal, keeper, shop):
    """While no other thread runs for longer than the lease, it is renewed and others refused; then it is free."""
    journal.locks["OPTIONS"]["lease"] = 8  # The other process starts in that time on a busy machine, too.
    first = journal.start("deafly", shop, "--how=holding", f"--seconds={HELD}")
    begun = first.works()
    lock = keeper.lock_of(begun["token"])
    while time.monotonic() < begun["at"] + HELD:
        assert keeper.refuses(lock)
        time.sleep(0.1)

    status, words = first.ends()

    assert status == 0, words
    assert not keeper.refuses(lock)


def test_a_deaf_holder_that_lost_its_lease_is_killed(journal, keeper, shop):
    """By the process that renews it, which alone can know."""
    journal.locks["OPTIONS"]["lease"] = 6
    first = journal.start("deafly", shop, "--how=deaf")
    keeper.force_release(first.works()["token"])
    freed = time.monotonic()

    assert first.ends()[0] == -signal.SIGKILL
    assert time.monotonic() - freed < 6 + 2


@pytest.mark.skipif(os.geteuid() != 0, reason="Only root makes process 1 of a new namespace.")
def test_a_deaf_process_1_that_lost_its_lease_is_ended(journal, keeper, shop):
    """It gets no SIGKILL from its child, and ends all the same."""
    journal.locks["OPTIONS"]["lease"] = 6
    first = journal.start("deafly", shop, "--how=deaf", inside=("unshare", "--pid", "--fork", "--mount-proc"))
    keeper.force_release(until(journal.entries)[0]["token"])
    freed = time.monotonic()

    assert first.ends()[0] != 0
    assert time.monotonic() - freed < 6 + 4


def test_a_holder_that_hears_is_told_of_the_loss(journal, keeper, shop):
    """At once, by the other process's signal; it ends as with any loss, and so does that process."""
    journal.locks["OPTIONS"]["lease"] = 30  # Before half of it is over the other process is there
    first = journal.start("deafly", shop, "--how=asleep")
    deputy = deputy_of(first)
    keeper.force_release(first.works()["token"])

    status, words = first.ends()

    assert status == 75, words
    assert "the process that renews it says so" in words
    assert is_gone(deputy)


def test_the_lease_is_renewed_here_when_the_other_process_dies(journal, shop):
    """Its work goes on as if it had never asked for another process."""
    first = journal.start("deafly", shop, f"--seconds={3 * JOB_LEASE}")
    first.works()
    os.kill(deputy_of(first), signal.SIGKILL)

    status, words = first.ends()

    assert status == 0, words


def test_the_other_process_does_not_outlive_its_parent(journal, shop):
    """A killed holder's lease ends."""
    first = journal.start("deafly", shop)
    deputy = deputy_of(first)
    first.kill()

    until(lambda: is_gone(deputy), 20)


def test_nothing_secret_is_in_its_arguments(journal, shop):
    """It finds the settings as its parent did, and its orders in a pipe."""
    first = journal.start("deafly", shop)

    words = Path(f"/proc/{deputy_of(first)}/cmdline").read_bytes().split(b"\0")

    assert words[1:3] == [b"-m", b"cloudrun_jobs.locks.deputy"]
    assert len(words) == 5


def test_a_process_without_a_settings_module_is_told_so(monkeypatch: Any):
    """The other process could not find its settings."""
    monkeypatch.delenv("DJANGO_SETTINGS_MODULE")

    with LockManager("deputy").lock() as lease, pytest.raises(InvalidSettings, match="DJANGO_SETTINGS_MODULE"):
        Deputy([lease], time.monotonic() + 10, wake=None)
