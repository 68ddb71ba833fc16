"""Jobs that are killed, stopped and resumed: real processes, signals and servers; the history is checked."""

from __future__ import annotations

import signal
import time
from pathlib import Path
from typing import Any

import pytest
from django.db import connections

from tests.locks.conftest import JOB_LEASE
from tests.locks.workers import Workers, until
from tests.servers.proxy import FaultProxy

pytestmark = pytest.mark.faults

BOTH = pytest.mark.parametrize("kind", ["redis", "postgres"])


@BOTH
def test_retry_takes_over_from_a_killed_attempt_at_once(workers, own_option):
    """The next attempt of a killed task does not wait for the lease; its token is greater."""
    workers.locks["OPTIONS"]["lease"] = 600
    first = workers.start("work", own_option)
    begun = first.wait_until_working()
    first.kill()

    second = workers.start("work", own_option, "--seconds=0.1", attempt=1)

    assert second.wait_until_working()["token"] > begun["token"]
    assert second.wait()[0] == 0
    workers.check_history()


@BOTH
def test_other_execution_waits_for_the_lease_of_a_killed_one(workers, own_option):
    """It is skipped, with one log line that names the holder, until the lease has ended."""
    first = workers.start("work", own_option)
    first.wait_until_working()
    duplicate = workers.start_duplicate("work", own_option)
    status, output = duplicate.wait()
    first.kill()

    assert status == 0
    assert "was skipped" in output
    assert f" held by {workers.prefix}-a (task 0) since 20" in output
    assert duplicate.entry("begin") is None

    until(lambda: _starts(workers, own_option))
    workers.check_history()


def _starts(workers: Workers, own_option: str, count: int = 1) -> bool:
    worker = workers.start_duplicate("work", own_option, "--seconds=0", count=count)
    assert worker.wait()[0] == 0
    return worker.entry("begin") is not None


@BOTH
def test_stopped_holder_loses_its_lease(workers, own_option):
    """Another execution worked meanwhile; the resumed one fails, and does not release that one's lock."""
    first = workers.start("work", own_option)
    first.wait_until_working()
    first.send(signal.SIGSTOP)
    second = until(lambda: _start_other(workers, own_option))
    first.send(signal.SIGCONT)

    status, output = first.wait()

    assert status != 0
    assert "Timeout" in output or "is lost" in output
    begun = second.wait_until_working()["at"]
    assert not [entry for entry in first.history if entry["what"] == "work" and entry["at"] > begun]
    assert not _starts(workers, own_option)
    assert second.process.poll() is None


def _start_other(workers: Workers, own_option: str) -> Any:
    worker = workers.start_duplicate("work", own_option)
    until(lambda: worker.entry("begin") or worker.process.poll() is not None)
    return worker if worker.entry("begin") else None


def test_resumed_earlier_attempt_loses_its_lease(workers, own_option):
    """Its retry took over: it can neither renew nor release, and the retry goes on."""
    workers.locks["OPTIONS"]["lease"] = 20
    earlier = workers.start("work", own_option)
    earlier.wait_until_working()
    earlier.send(signal.SIGSTOP)
    retry = workers.start("work", own_option, attempt=1)
    retry.wait_until_working()
    earlier.send(signal.SIGCONT)

    assert earlier.wait()[0] == 75
    assert not _starts(workers, own_option)
    assert retry.process.poll() is None


def test_forked_child_does_not_end_its_parents_job(workers, own_option):
    """An exiting child unwinds the same context managers, but releases no lock of its parent."""
    first = workers.start("work", own_option, "--how=forking")

    status, output = first.wait()

    assert status == 0, output
    assert first.entry("child")
    assert _starts(workers, own_option)


def test_sigterm_releases_the_locks(workers, own_option):
    """SIGTERM ends the job with a non-zero status, and the lock is free at once."""
    workers.locks["OPTIONS"]["lease"] = 600
    first = workers.start("work", own_option, "--how=asleep")
    first.wait_until_working()
    first.send(signal.SIGTERM)

    assert first.wait()[0] == 143
    assert _starts(workers, own_option)
    workers.check_history()


def test_job_survives_a_move_to_another_machine(workers, own_option):
    """SIGTSTP does not stop the job, and after SIGCONT it goes on."""
    first = workers.start("work", own_option, "--seconds=4")
    first.wait_until_working()
    first.send(signal.SIGTSTP)
    before = len(first.history)
    until(lambda: len(first.history) > before + 5)
    assert "T (stopped)" not in Path(f"/proc/{first.process.pid}/status").read_text()
    first.send(signal.SIGCONT)

    assert first.wait()[0] == 0
    workers.check_history()


def test_lost_lease_ends_a_job_that_catches_exceptions(workers, lock_server, own_option):
    """`LeaseLost` is no `Exception`, so `except Exception` does not catch it."""
    first = workers.start("work", own_option, "--how=stubbornly")
    lock_server.take_away(first.wait_until_working()["token"])

    status, output = first.wait()

    assert status == 75, output


def test_watchdog_ends_a_job_that_holds_the_gil(workers, own_option):
    """No Python code runs meanwhile, and the process still ends before the server grants its lock again."""
    first = workers.start("work", own_option, "--how=holding_the_gil")
    held_since = until(lambda: first.entry("holds the GIL"))["at"]

    assert first.wait()[0] != 0

    assert time.monotonic() - held_since < JOB_LEASE + 0.5


@BOTH
def test_lock_lease_keeps_the_lock_of_a_job_that_holds_the_gil(workers, lock_server, own_option):
    """With `lock_lease`, a job that holds the GIL for longer than the lock backend's lease keeps its lock."""
    first = workers.start(
        "long_lease", own_option, "--how=holding_the_gil_for_seconds", f"--seconds={2 * JOB_LEASE}"
    )
    begun = first.wait_until_working()
    lock = lock_server.lock_of(begun["token"])
    until(lambda: time.monotonic() > begun["at"] + 1.5 * JOB_LEASE)
    assert lock_server.refuses(lock)

    status, output = first.wait()

    assert status == 0, output
    assert not lock_server.refuses(lock)


def test_watchdog_ends_a_process_that_cannot_release_its_lost_lock(workers, own_option, postgres_server):
    """Its server stops replying, first to the renewals and then to the release."""
    proxy = FaultProxy(postgres_server.port)
    workers.databases["default"] |= {"PORT": str(proxy.port)}
    first = workers.start("work", own_option, "--how=asleep")
    first.wait_until_working()
    proxy.silent = True

    assert first.wait()[0] == 1

    assert first.entry("end")["error"] == "LeaseLost"
    assert time.monotonic() - first.entry("end")["at"] < JOB_LEASE
    proxy.silent = False
    proxy.close()


def test_locks_are_reentrant(workers, own_option):
    """A job that calls itself acquires no second lock, and keeps the first one."""
    worker = workers.start("work", own_option, "--how=nested")

    assert worker.wait()[0] == 0
    assert [entry["what"] for entry in worker.history] == ["begin", "begin", "end", "still held", "end"]


def test_subprocess_with_the_same_environment_is_a_duplicate(workers, own_option):
    """The same task and attempt in another process ends at once, without work."""
    worker = workers.start("work", own_option, "--how=inherited")

    assert worker.wait()[0] == 0
    child = worker.entry("child")
    assert child is not None
    assert child["code"] == 0
    assert "is superseded" in child["output"]
    assert sum(entry["what"] == "begin" for entry in workers.history()) == 1


def test_locks_hold_outside_of_cloud_run(workers, own_option):
    """Two terminals do not run the job twice at once."""
    first = workers.start("work", own_option, execution="")
    first.wait_until_working()

    status, output = workers.start("work", own_option, execution="").wait()

    assert status == 0
    assert "held by local:" in output
    workers.check_history()


@BOTH
def test_tasks_share_the_lock_of_their_execution(workers, own_option):
    """No other execution starts before all tasks are done, through waves, gaps and a killed task."""
    workers.locks["OPTIONS"]["lease"] = 60
    kwargs = {"count": 3}
    first = workers.start("work", own_option, "--seconds=0", index=0, **kwargs)
    assert first.wait()[0] == 0
    second = workers.start("work", own_option, index=1, **kwargs)
    second.wait_until_working()
    second.kill()
    assert not _starts(workers, own_option, **kwargs)
    assert workers.start("work", own_option, "--seconds=0", index=1, attempt=1, **kwargs).wait()[0] == 0
    assert not _starts(workers, own_option, **kwargs)

    assert workers.start("work", own_option, "--seconds=0", index=2, **kwargs).wait()[0] == 0

    assert sum(entry["what"] == "begin" for entry in workers.history()) == 4
    assert _starts(workers, own_option, **kwargs)


def test_parallelism_limits_executions(workers, own_option):
    """Of four executions two work at once, and in the end all have worked."""
    started = [workers.start("count", own_option, "--seconds=0.5", execution=str(number)) for number in range(4)]

    assert [worker.wait()[0] for worker in started] == [0, 0, 0, 0]
    assert all(worker.entry("end") for worker in started)
    workers.check_history(parallelism=2)


@pytest.mark.parametrize("kind", ["postgres", "mariadb"])
def test_locks_are_independent_of_the_jobs_transaction(workers, own_option):
    """A job in one transaction with an error keeps its lock, and releases it after the rollback."""
    first = workers.start("work", own_option, "--how=atomic")
    first.wait_until_working()

    assert not _starts(workers, own_option)
    assert first.process.poll() is None
    workers.finish()
    assert first.wait()[0] == 0
    assert _starts(workers, own_option)
    workers.check_history()


@pytest.mark.parametrize("kind", ["postgres", "mariadb", "sqlite"])
def test_fence_rejects_writes_of_a_stale_holder(workers, own_option, kind):
    """A holder that was stopped before the fence, and taken over from, writes nothing more."""
    workers.locks["OPTIONS"]["lease"] = 20
    with connections[kind].cursor() as cursor:
        cursor.execute("DROP TABLE IF EXISTS fenced_writes")
        cursor.execute("CREATE TABLE fenced_writes (token BIGINT, execution VARCHAR(100))")
    connections[kind].close()
    first = workers.start("work", own_option, "--how=fenced")
    until(lambda: len(first.history) > 5)
    stop = workers.path.with_suffix(".stop")
    stop.touch()
    until(lambda: "T (stopped)" in Path(f"/proc/{first.process.pid}/status").read_text())
    stop.unlink()
    retry = workers.start("work", own_option, "--how=fenced", attempt=1)
    until(lambda: len(retry.history) > 5)
    written = _written(kind, first.wait_until_working()["token"])
    first.send(signal.SIGCONT)

    status, output = first.wait()
    assert status == 75, output
    assert _written(kind, first.wait_until_working()["token"]) == written > 0
    assert _written(kind, retry.wait_until_working()["token"]) > 0


def _written(kind: str, token: int) -> int:
    with connections[kind].cursor() as cursor:
        cursor.execute("SELECT COUNT(*) FROM fenced_writes WHERE token = %s", [token])
        count = cursor.fetchone()[0]
    connections[kind].close()
    return count
