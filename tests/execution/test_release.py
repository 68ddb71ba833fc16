"""No lock outlives an execution that is recorded as over, whatever happened to its processes and replies."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from django.core.management import call_command
from django.db import Error, transaction
from django.db.transaction import TransactionManagementError
from google.cloud.run_v2 import Condition, Execution
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pytest_django import Settings

from cloudrun_jobs import LockManager, backends, conf
from cloudrun_jobs.exceptions import JobFailed, LockUnavailable, LockUnknown, ResultUnavailable
from cloudrun_jobs.execution import deadlines
from cloudrun_jobs.execution.recording import COMPLETE
from cloudrun_jobs.locks import acquire, current, executions, local, names
from cloudrun_jobs.locks.base import Grant, Owner
from cloudrun_jobs.locks.database import DatabaseLocks
from cloudrun_jobs.locks.local import LocalLocks
from cloudrun_jobs.locks.requests import LockRequest, SlotRequest, TaskRequest
from cloudrun_jobs.models import JobRun, Status, TaskRun
from cloudrun_jobs.models.functions import Now
from cloudrun_jobs.models.statuses import FINISHED
from cloudrun_jobs.runs.reconcile import reconcile
from cloudrun_jobs.signals import lock_release_failed
from tests.backends.server import CloudRun
from tests.examples import scaled
from tests.jobs.management.commands import outcome
from tests.locks.workers import database_settings
from tests.runs.conftest import EXECUTION, OTHER, Container

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.parametrize("database", ["sqlite"], indirect=True)

LAST_ATTEMPT = outcome.Command.max_retries
CANCELLED = Condition.ExecutionReason.CANCELLED

faults: list[str] = []  # What happens to the next requests: "lost" replies, "refused" connections, or "ok".


class FaultyLocks(LocalLocks):
    """Locks of a server whose replies are lost, or that is away for a while."""

    def acquire(self, *args: Any) -> Any:
        return _faulty(super().acquire, *args)

    def release(self, *args: Any) -> Any:
        return _faulty(super().release, *args)

    def complete_task(self, *args: Any) -> Any:
        return _faulty(super().complete_task, *args)

    def release_holder(self, *args: Any) -> Any:
        return _faulty(super().release_holder, *args)


def _faulty(request: Any, *args: Any) -> Any:
    fault = faults.pop(0) if faults else "ok"
    if fault == "refused":
        raise LockUnavailable("The server is away in this test.")
    reply = request(*args)
    if fault == "lost":
        raise LockUnknown("The reply is lost in this test.")
    return reply


@pytest.fixture(autouse=True)
def _locks(settings: Settings, cloud: CloudRun, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    settings.CLOUDRUN_JOBS = {**settings.CLOUDRUN_JOBS, "LOCKS": {"BACKEND": f"{__name__}.FaultyLocks"}}
    monkeypatch.setattr(deadlines, "RECORD_END_LIMIT_SECONDS", 5.0)
    monkeypatch.setattr(acquire, "FIRST_RETRY_DELAY_SECONDS", 0.01)
    yield
    faults.clear()
    local.clear()


def held(execution: str = EXECUTION) -> list[str]:
    return [holder.label for holder in current().holders("crj1:") if holder.holder == execution]


def start_and_die(index: int = 0, attempt: int = 0, count: int = 1, ending: str = "text") -> None:
    """Acquire the locks of a task as its process does, and end without releasing them."""
    owner = Owner(holder=EXECUTION, index=index, attempt=attempt, nonce=f"{index} {attempt} {len(held())}")
    for name in (names.for_arguments("outcome", {"ending": ending}), names.for_job("outcome")):
        request: LockRequest = SlotRequest(current(), name, 1, owner)
        if count > 1:
            request = TaskRequest(current(), name, 1, owner, None, count)
        with suppress(LockUnavailable):
            request.acquire()
    with suppress(LockUnavailable):
        current().acquire(names.lock_name(f"LockManager {index} {attempt}"), 1, owner, 60)


def silence() -> None:
    """Make all heartbeats old."""
    long_ago = Now() - timedelta(hours=1)
    TaskRun.objects.update(heartbeat_at=long_ago)
    JobRun.objects.update(started_at=long_ago, sent_at=long_ago)


def ended(*, count: int = 1, succeeded: int = 0, cancelled: int = 0) -> Execution:
    failed = count - succeeded - cancelled
    state = Condition.State.CONDITION_FAILED if succeeded < count else Condition.State.CONDITION_SUCCEEDED
    reason = {"execution_reason": CANCELLED} if cancelled else {}
    return Execution(
        task_count=count,
        succeeded_count=succeeded,
        failed_count=failed,
        cancelled_count=cancelled,
        completion_time=Timestamp(seconds=1),
        conditions=[Condition(type_="Completed", state=state, **reason)],
    )


def running(**values: Any) -> JobRun:
    """Record a run whose execution has started."""
    name = f"projects/acme/locations/europe-west4/jobs/outcome-production/executions/{EXECUTION}"
    place = {"command": "outcome", "environment": "production", "argv": ["outcome", "text"]}
    fields = {"status": Status.RUNNING, "execution": EXECUTION, "execution_name": name, "started_at": Now()}
    run = JobRun.objects.create(**place, **fields, **values)
    TaskRun.objects.create(run=run, index=0, worker=run.pk)
    return run


def reconciled(run: JobRun) -> None:
    silence()
    reconcile(backends.current())


def refreshed(run: JobRun) -> None:
    run.refresh()


def waited_for(run: JobRun) -> None:
    with suppress(JobFailed, ResultUnavailable):
        run.operation.result(timeout=30)


@pytest.mark.parametrize("end", [reconciled, refreshed, waited_for])
@pytest.mark.parametrize(
    ("execution", "count"),
    [
        (ended(), 1),
        (ended(succeeded=1), 1),
        (ended(cancelled=1), 1),
        (ended(count=3, succeeded=1, cancelled=2), 3),
    ],
)
def test_the_process_that_records_the_end_of_a_killed_execution_frees_its_locks(
    cloud: CloudRun, end: Any, execution: Execution, count: int
) -> None:
    """Whichever process finds out, and whether the execution failed, succeeded or was cancelled."""
    run = running(task_count=count)
    start_and_die(count=count)
    other = current().acquire(names.lock_name("of another execution"), 1, Owner(holder=OTHER, nonce="other"), 60)
    assert len(held()) == (3 if count == 1 else 5)
    cloud.execution = execution

    end(run)

    run.refresh_from_db()
    assert run.status in FINISHED
    assert held() == []
    assert isinstance(other, Grant)
    assert current().renew(other, 60)


@pytest.mark.parametrize("end", [reconciled, refreshed])
def test_the_locks_of_an_execution_that_goes_on_stay(cloud: CloudRun, end: Any) -> None:
    """A silent execution that Cloud Run reports as running keeps its locks."""
    start_and_die()
    end(running())

    assert len(held()) == 3


def test_a_deleted_execution_may_still_be_stopping(cloud: CloudRun) -> None:
    """The locks of a deleted execution are free once it is silent, for its containers are gone then."""
    run = running()
    start_and_die()
    cloud.errors = [(grpc.StatusCode.NOT_FOUND, "gone")]
    run.refresh()
    assert run.status == Status.LOST
    assert len(held()) == 3

    JobRun.objects.update(status=Status.RUNNING, finished_at=None)
    cloud.errors = [(grpc.StatusCode.NOT_FOUND, "gone")]
    reconciled(run)
    assert held() == []


@pytest.mark.parametrize("replies", [["refused"], ["lost"], ["lost", "refused", "lost"]])
def test_the_reconciler_repeats_a_release(cloud: CloudRun, replies: list[str]) -> None:
    """The server is away for a moment, or its reply is lost."""
    run = running()
    start_and_die()
    cloud.execution = ended()
    faults.extend(replies)
    reconciled(run)

    assert held() == []


def test_the_end_is_recorded_while_the_lock_server_is_away(
    cloud: CloudRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The locks then expire, and a signal tells of it."""
    failures: list[Any] = []
    monkeypatch.setattr(executions, "RELEASE_LIMIT_SECONDS", 0.2)
    lock_release_failed.connect(lambda error, **values: failures.append(error), weak=False, dispatch_uid="release")
    run = running()
    start_and_die()
    cloud.execution = ended()
    faults.extend(["refused"] * 100)

    reconciled(run)

    lock_release_failed.disconnect(dispatch_uid="release")
    run.refresh_from_db()
    assert run.status == Status.FAILED
    assert {type(error) for error in failures} == {LockUnavailable}


def test_a_reconciler_that_dies_leaves_no_lock_of_an_ended_run(
    cloud: CloudRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its next step after the record is never needed."""
    run = running()
    start_and_die()
    cloud.execution = ended()
    monkeypatch.setattr(JobRun, "apply_state", lambda *args: (_ for _ in ()).throw(Error("it died here")))
    reconciled(run)

    assert held() == []


@pytest.mark.parametrize("ending", ["text", "exit 0", "error"])
@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("replies", [["lost"], ["refused"] * 3, ["lost", "refused", "lost"]])
def test_a_job_repeats_its_releases(container: Container, ending: str, count: int, replies: list[str]) -> None:
    """The exit status is that of the work, and the next run starts at once."""
    status = int(ending == "error")
    for index in range(count):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(outcome, "ENDINGS", {ending: _then_fail(outcome.ENDINGS[ending], replies)})
            code = container.run("outcome", ending, index=index, count=count, attempt=LAST_ATTEMPT)
        assert code == status
        faults.clear()

    assert JobRun.objects.get().status in FINISHED
    assert held() == []


def _then_fail(work: Any, replies: list[str]) -> Any:
    def call() -> Any:
        faults.extend(replies)
        return work()

    return call


def test_a_release_is_not_repeated_beyond_the_time_of_the_record(
    container: Container, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that stays away does not keep the process, nor change its exit status."""
    monkeypatch.setattr(deadlines, "RECORD_END_LIMIT_SECONDS", 0.3)
    monkeypatch.setattr(outcome, "ENDINGS", {"text": _then_fail(lambda: "done", ["refused"] * 1000)})

    assert container.run("outcome", "text") == 0

    assert JobRun.objects.get().status == Status.SUCCEEDED


def test_a_lost_grant_of_a_run_that_failed_is_freed(container: Container, monkeypatch: pytest.MonkeyPatch) -> None:
    """A job that never learns that it holds its lock exits with 75, and holds nothing afterwards."""
    monkeypatch.setattr(acquire, "SERVER_OUTAGE_LIMIT", 0)
    faults.append("lost")

    assert container.run("outcome", "text", attempt=LAST_ATTEMPT) == 75

    assert JobRun.objects.get().status == Status.FAILED
    assert held() == []


def test_a_nested_run_does_not_free_the_locks_of_the_outer_one(container: Container) -> None:
    """Both have the execution's name; only the outer run is the execution's."""
    seen: list[list[str]] = []

    def work() -> None:
        faults.extend(["ok"] * 2 + ["lost"])
        call_command("echo")
        seen.append(held())

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(outcome, "ENDINGS", {"text": work})
        assert container.run("outcome", "text") == 0

    assert [len(labels) for labels in seen] == [2]
    assert held() == []


def test_a_lock_that_the_job_forgets_is_freed(container: Container, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process ends with it, and the run is over."""
    manager = LockManager("forgotten")
    monkeypatch.setattr(outcome, "ENDINGS", {"text": lambda: bool(manager.try_lock())})

    assert container.run("outcome", "text") == 0

    assert JobRun.objects.get().result is True
    assert held() == []
    assert not manager.release_lock()


@pytest.mark.parametrize("attempt", [0, LAST_ATTEMPT])
@pytest.mark.parametrize("replies", [[], ["lost"]])
def test_a_lock_around_a_job_stays(container: Container, attempt: int, replies: list[str]) -> None:
    """A process that calls a job, and goes on, keeps its own locks."""
    container.environment(attempt=attempt)
    with LockManager("around").lock() as lease, pytest.MonkeyPatch.context() as patch:
        patch.setattr(outcome, "ENDINGS", {"text": _then_fail(lambda: "done", replies)})
        call_command("outcome", "text")

        assert JobRun.objects.get().status == Status.SUCCEEDED
        assert held() == ["around"]
        assert lease._keeper.request.renew()


def test_a_killed_attempt_of_another_task_leaves_no_lock(container: Container, cloud: CloudRun) -> None:
    """The task that ends the run has not been retried itself."""
    start_and_die(0, 0, 2)
    container.run("outcome", "text", index=0, count=2, attempt=1)
    container.run("outcome", "text", index=1, count=2)

    assert JobRun.objects.get().status == Status.SUCCEEDED
    assert held() == []


ENDINGS = st.sampled_from(["text", "exit 0", "error", "killed"])
FAULTS = st.lists(st.sampled_from(["ok", "lost", "refused"]), max_size=4)


@hypothesis_settings(
    max_examples=scaled(20), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data(), count=st.integers(1, 3))
def test_whatever_happens_a_run_that_is_over_holds_nothing(
    container: Container, cloud: CloudRun, data: st.DataObject, count: int
) -> None:
    """Any order of tasks, endings, deaths and retries, with faults of the lock server in between."""
    JobRun.objects.all().delete()
    local.clear()
    attempts = dict.fromkeys(range(count), 0)
    while attempts:
        index = data.draw(st.sampled_from(sorted(attempts)))
        ending, attempt = data.draw(ENDINGS), attempts[index]
        if data.draw(st.integers(0, 9)) == 0:
            JobRun.objects.update(cancel_requested_at=Now())
        faults[:] = data.draw(FAULTS)
        if ending == "killed":
            start_and_die(index, attempt, count)
        else:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(outcome, "ENDINGS", {"text": outcome.ENDINGS[ending]})
                container.run("outcome", "text", index=index, count=count, attempt=attempt)
        faults.clear()
        attempts[index] += 1
        if attempt == LAST_ATTEMPT or TaskRun.objects.filter(index=index, status__in=COMPLETE).exists():
            del attempts[index]
        run = JobRun.objects.first()
        if run is not None and run.status in FINISHED:
            assert held() == []
            return
    if run is not None:
        cloud.execution = ended(count=count)
        reconciled(run)
        assert held() == []


# A job whose process ignores SIGTERM: its outcome is recorded by a thread, and the process exits.
STUBBORN = """
import os, signal, sys, time
import django
django.setup()
from cloudrun_jobs.execution import termination
termination.SIGTERM_CLEANUP_SECONDS = 0.2
from django.core.management import execute_from_command_line
from tests.jobs.management.commands import outcome

def work():
    while True:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(60)
        except BaseException:
            pass

outcome.ENDINGS["text"] = work
execute_from_command_line(["manage.py", "outcome", "text", "--skip-checks"])
"""


def test_a_job_that_ignores_sigterm_leaves_no_lock(database: str, settings: Settings) -> None:
    """The thread that records its outcome also releases its locks."""
    environment = {
        "DJANGO_SETTINGS_MODULE": "tests.runs.settings",
        "RUNS_DATABASE": json.dumps(database_settings(database)),
        "CLOUD_RUN_EXECUTION": EXECUTION,
        "CLOUD_RUN_TASK_ATTEMPT": str(LAST_ATTEMPT),
    }
    done = subprocess.run(
        [sys.executable, "-c", STUBBORN], env={**os.environ, **environment}, cwd=ROOT, check=False, timeout=60
    )

    assert done.returncode == 128 + signal.SIGTERM
    assert JobRun.objects.get().status == Status.FAILED
    settings.CLOUDRUN_JOBS = {"ENVIRONMENT": "production"}
    locks = DatabaseLocks(conf.load(), using=database)
    assert (locks.holders("crj1:"), locks.exists(names.for_job("outcome").key)) == ([], True)
    locks.close()


def test_a_release_in_a_broken_transaction_is_not_repeated(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rollback releases the lock: neither a job nor a LockManager waits for it."""
    alias = JobRun.objects.db
    settings.CLOUDRUN_JOBS = {
        "ENVIRONMENT": "test",
        "LOCKS": {"BACKEND": "cloudrun_jobs.locks.database.DatabaseLocks", "OPTIONS": {"using": alias}},
    }
    monkeypatch.setattr(outcome, "ENDINGS", {"text": lambda: transaction.set_rollback(True, alias)})
    before = time.monotonic()

    with suppress(TransactionManagementError), transaction.atomic(alias):
        outcome.Command().delay("text")
    with transaction.atomic(alias), LockManager("broken").lock():
        transaction.set_rollback(True, alias)

    assert time.monotonic() - before < 4  # The record's end has five seconds here.
    assert current().holders("crj1:") == []


def test_sigterm_ends_the_repetition_of_a_release(container: Container, monkeypatch: pytest.MonkeyPatch) -> None:
    """The work is recorded: SIGKILL must not make it fail."""
    monkeypatch.setattr(deadlines, "RECORD_END_LIMIT_SECONDS", 60.0)
    asked: list[float] = []

    def fail(*args: Any) -> Any:
        asked.append(time.monotonic())
        if len(asked) == 6:
            signal.raise_signal(signal.SIGTERM)
        if len(asked) > 30:
            pytest.fail("the release is repeated")
        raise LockUnavailable("The server is unavailable in this test.")

    monkeypatch.setattr(FaultyLocks, "release", fail)
    monkeypatch.setattr(FaultyLocks, "release_holder", fail)

    assert container.run("outcome", "text") == 0
    assert len(asked) < 10
    assert JobRun.objects.get().status == Status.SUCCEEDED
