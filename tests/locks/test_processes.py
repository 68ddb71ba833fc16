"""Jobs that die, stop, come back and meet: real processes, real signals, real servers; the history is judged."""

from __future__ import annotations

import signal
import time
from pathlib import Path
from typing import Any

import pytest
from django.db import connections

from tests.locks.conftest import JOB_LEASE
from tests.locks.workers import Journal, until
from tests.servers.proxy import FaultProxy

pytestmark = pytest.mark.faults

BOTH = pytest.mark.parametrize("kind", ["redis", "postgres"])


@BOTH
def test_a_retry_takes_over_from_a_killed_attempt_at_once(journal, shop):
    """The next attempt of the task that was killed does not wait for the lease; its token is greater."""
    journal.locks["OPTIONS"]["lease"] = 600
    first = journal.start("work", shop)
    begun = first.works()
    first.kill()

    second = journal.start("work", shop, "--seconds=0.1", attempt=1)

    assert second.works()["token"] > begun["token"]
    assert second.ends()[0] == 0
    journal.check()


@BOTH
def test_another_execution_waits_for_a_killed_ones_lease(journal, shop):
    """It is skipped, in one line that says who holds the lock, until the lease has ended."""
    first = journal.start("work", shop)
    first.works()
    duplicate = journal.start_another("work", shop)
    status, words = duplicate.ends()
    first.kill()

    assert status == 0
    assert "was skipped" in words
    assert f" held by {journal.prefix}-a (task 0) since 20" in words
    assert duplicate.saw("begin") is None

    until(lambda: _comes_in(journal, shop))
    journal.check()


def _comes_in(journal: Journal, shop: str, count: int = 1) -> bool:
    worker = journal.start_another("work", shop, "--seconds=0", count=count)
    assert worker.ends()[0] == 0
    return worker.saw("begin") is not None


@BOTH
def test_a_stopped_holder_finds_its_lease_lost(journal, shop):
    """Another execution worked meanwhile; it does no more work, fails, and does not free that one's lock."""
    first = journal.start("work", shop)
    first.works()
    first.send(signal.SIGSTOP)
    second = until(lambda: _another(journal, shop))
    first.send(signal.SIGCONT)

    status, words = first.ends()

    assert status != 0
    assert "Timeout" in words or "is lost" in words
    begun = second.works()["at"]
    assert not [entry for entry in first.entries if entry["what"] == "work" and entry["at"] > begun]
    assert not _comes_in(journal, shop)
    assert second.process.poll() is None


def _another(journal: Journal, shop: str) -> Any:
    worker = journal.start_another("work", shop)
    until(lambda: worker.saw("begin") or worker.process.poll() is not None)
    return worker if worker.saw("begin") else None


def test_an_earlier_attempt_that_comes_back_ends_by_itself(journal, shop):
    """Its retry took over: it can neither renew nor release, and the retry is not disturbed."""
    journal.locks["OPTIONS"]["lease"] = 20
    zombie = journal.start("work", shop)
    zombie.works()
    zombie.send(signal.SIGSTOP)
    retry = journal.start("work", shop, attempt=1)
    retry.works()
    zombie.send(signal.SIGCONT)

    assert zombie.ends()[0] == 75
    assert not _comes_in(journal, shop)
    assert retry.process.poll() is None


def test_a_child_does_not_end_its_parents_job(journal, shop):
    """It goes out by the same door, where it gives back nothing that is its parent's, and waits for nobody."""
    first = journal.start("work", shop, "--how=forking")

    status, words = first.ends()

    assert status == 0, words
    assert first.saw("child")
    assert _comes_in(journal, shop)


def test_terminating_releases(journal, shop):
    """SIGTERM ends the job with a status that is not zero, and the lock is free at once."""
    journal.locks["OPTIONS"]["lease"] = 600
    first = journal.start("work", shop, "--how=asleep")
    first.works()
    first.send(signal.SIGTERM)

    assert first.ends()[0] == 143
    assert _comes_in(journal, shop)
    journal.check()


def test_moving_to_another_machine_is_survived(journal, shop):
    """SIGTSTP does not stop the job, and after SIGCONT it goes on."""
    first = journal.start("work", shop, "--seconds=4")
    first.works()
    first.send(signal.SIGTSTP)
    before = len(first.entries)
    until(lambda: len(first.entries) > before + 5)
    assert "T (stopped)" not in Path(f"/proc/{first.process.pid}/status").read_text()
    first.send(signal.SIGCONT)

    assert first.ends()[0] == 0
    journal.check()


def test_a_job_that_catches_every_exception_still_ends(journal, keeper, shop):
    """LeaseLost is no Exception, so `except Exception` does not hold it up."""
    first = journal.start("work", shop, "--how=stubbornly")
    keeper.force_release(first.works()["token"])

    status, words = first.ends()

    assert status == 75, words


def test_a_job_that_holds_the_interpreter_is_ended_in_time(journal, shop):
    """No Python code runs meanwhile, and the process still ends before others may have its lock."""
    first = journal.start("work", shop, "--how=deaf")
    deaf_since = until(lambda: first.saw("deaf"))["at"]

    assert first.ends()[0] != 0

    assert time.monotonic() - deaf_since < JOB_LEASE + 0.5


@BOTH
def test_a_long_lease_outlives_a_job_that_holds_the_gil(journal, keeper, shop):
    """With `lock_lease`, a job that holds the GIL for longer than the lock backend's lease keeps its lock."""
    first = journal.start("long_lease", shop, "--how=holding", f"--seconds={2 * JOB_LEASE}")
    begun = first.works()
    lock = keeper.lock_of(begun["token"])
    until(lambda: time.monotonic() > begun["at"] + 1.5 * JOB_LEASE)
    assert keeper.refuses(lock)

    status, output = first.ends()

    assert status == 0, output
    assert not keeper.refuses(lock)


def test_a_process_that_cannot_give_its_lost_lock_back_is_ended(journal, shop, postgres_server):
    """Its server falls silent, so no renewal is answered, and then the request to give the lock back neither."""
    proxy = FaultProxy(postgres_server.port)
    journal.databases["default"] |= {"PORT": str(proxy.port)}
    first = journal.start("work", shop, "--how=asleep")
    first.works()
    proxy.silent = True

    assert first.ends()[0] == 1

    assert first.saw("end")["error"] == "LeaseLost"
    assert time.monotonic() - first.saw("end")["at"] < JOB_LEASE
    proxy.silent = False
    proxy.close()


def test_a_job_that_calls_itself_does_not_wait_for_itself(journal, shop):
    """The inner run takes no lock of its own, and leaves the outer one's."""
    worker = journal.start("work", shop, "--how=nested")

    assert worker.ends()[0] == 0
    assert [entry["what"] for entry in worker.entries] == ["begin", "begin", "end", "still held", "end"]


def test_a_subprocess_with_the_same_environment_is_refused(journal, shop):
    """The same task and attempt in another process is a duplicate: it ends at once, without work."""
    worker = journal.start("work", shop, "--how=inherited")

    assert worker.ends()[0] == 0
    child = worker.saw("child")
    assert child is not None
    assert child["code"] == 0
    assert "is superseded" in child["words"]
    assert sum(entry["what"] == "begin" for entry in journal.entries()) == 1


def test_outside_of_cloud_run_the_same_locks_are_taken(journal, shop):
    """Two terminals do not run the job twice at once."""
    first = journal.start("work", shop, execution="")
    first.works()

    status, words = journal.start("work", shop, execution="").ends()

    assert status == 0
    assert "held by local:" in words
    journal.check()


@BOTH
def test_tasks_share_their_executions_lock(journal, shop):
    """Through waves, gaps and a killed task, no other execution comes in before all tasks are done."""
    journal.locks["OPTIONS"]["lease"] = 60
    kwargs = {"count": 3}
    first = journal.start("work", shop, "--seconds=0", index=0, **kwargs)
    assert first.ends()[0] == 0
    second = journal.start("work", shop, index=1, **kwargs)
    second.works()
    second.kill()
    assert not _comes_in(journal, shop, **kwargs)
    assert journal.start("work", shop, "--seconds=0", index=1, attempt=1, **kwargs).ends()[0] == 0
    assert not _comes_in(journal, shop, **kwargs)

    assert journal.start("work", shop, "--seconds=0", index=2, **kwargs).ends()[0] == 0

    assert sum(entry["what"] == "begin" for entry in journal.entries()) == 4
    assert _comes_in(journal, shop, **kwargs)


def test_no_more_executions_than_declared(journal, shop):
    """Of four that come together two work at once, and in the end all have worked."""
    workers = [journal.start("count", shop, "--seconds=0.5", execution=str(number)) for number in range(4)]

    assert [worker.ends()[0] for worker in workers] == [0, 0, 0, 0]
    assert all(worker.saw("end") for worker in workers)
    journal.check(parallelism=2)


@pytest.mark.parametrize("kind", ["postgres", "mariadb"])
def test_the_jobs_own_transaction_does_not_concern_its_locks(journal, shop):
    """A job that is one transaction, with an error in it, keeps its lock, and gives it back after the rollback."""
    first = journal.start("work", shop, "--how=atomic")
    first.works()

    assert not _comes_in(journal, shop)
    assert first.process.poll() is None
    journal.enough()
    assert first.ends()[0] == 0
    assert _comes_in(journal, shop)
    journal.check()


@pytest.mark.parametrize("kind", ["postgres", "mariadb", "sqlite"])
def test_no_write_of_a_stale_holder_passes_the_fence(journal, shop, kind):
    """Stopped in front of the fence and overtaken, it writes nothing more when it comes back."""
    journal.locks["OPTIONS"]["lease"] = 20
    with connections[kind].cursor() as cursor:
        cursor.execute("DROP TABLE IF EXISTS fenced_writes")
        cursor.execute("CREATE TABLE fenced_writes (token BIGINT, execution VARCHAR(100))")
    connections[kind].close()
    first = journal.start("work", shop, "--how=fenced")
    until(lambda: len(first.entries) > 5)
    stop = journal.path.with_suffix(".stop")
    stop.touch()
    until(lambda: "T (stopped)" in Path(f"/proc/{first.process.pid}/status").read_text())
    stop.unlink()
    retry = journal.start("work", shop, "--how=fenced", attempt=1)
    until(lambda: len(retry.entries) > 5)
    written = _written(kind, first.works()["token"])
    first.send(signal.SIGCONT)

    status, words = first.ends()
    assert status == 75, words
    assert _written(kind, first.works()["token"]) == written > 0
    assert _written(kind, retry.works()["token"]) > 0


def _written(kind: str, token: int) -> int:
    with connections[kind].cursor() as cursor:
        cursor.execute("SELECT COUNT(*) FROM fenced_writes WHERE token = %s", [token])
        count = cursor.fetchone()[0]
    connections[kind].close()
    return count
