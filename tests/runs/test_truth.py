"""Races and duplicates that must not falsify a record."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from threading import Thread
from typing import Any

import grpc
import pytest
from django.core.management import call_command
from django.db import OperationalError, connections, transaction
from django.db.models import Q

from cloudrun_jobs.backends import current
from cloudrun_jobs.exceptions import AccessDenied, JobFailed, JobInterrupted, QuotaExhausted
from cloudrun_jobs.execution.attempt import Attempt
from cloudrun_jobs.execution.claim import AlreadyClaimed
from cloudrun_jobs.execution.recording import is_nested
from cloudrun_jobs.models import JobRun, Status, TaskRun
from cloudrun_jobs.models.functions import Now
from cloudrun_jobs.operations import ExecutionState, Operation
from cloudrun_jobs.runs.reconcile import reconcile
from tests.backends.server import CloudRun
from tests.jobs.management.commands import echo
from tests.runs.conftest import EXECUTION, OTHER, Container, begin, request

LONG_AGO = "2026-01-01T00:00:00Z"
PLACE = "projects/acme/locations/europe-west4/jobs/echo-test/executions"


def test_apply_state_ignores_other_execution() -> None:
    """The success of a superseded execution does not end the run."""
    run = request(status=Status.RUNNING, execution=EXECUTION)

    assert run.apply_state(ExecutionState(status="succeeded"), OTHER) is False
    assert JobRun.objects.get().status == Status.RUNNING


def test_a_handle_follows_the_claiming_execution(cloud: CloudRun) -> None:
    """The handle on a superseded execution follows the one that has claimed the run."""
    operation = echo.Command().delay()
    JobRun.objects.update(execution=OTHER, status=Status.RUNNING)
    cloud.execution.succeeded_count = 1
    cloud.execution.completion_time = datetime.now(UTC)

    assert operation.done() is False
    assert operation.execution_name.endswith(OTHER)
    cloud.execution.name = operation.execution_name
    assert operation.done() is True


def test_a_cancelled_run_is_cancelled_on_its_handle(cloud: CloudRun) -> None:
    """The exit status 0 of a superseded container is not a success."""
    operation = echo.Command().delay()
    JobRun.objects.update(status=Status.CANCELLED, reason="cancelled")
    cloud.execution.succeeded_count = 1
    cloud.execution.completion_time = datetime.now(UTC)

    with pytest.raises(JobFailed):
        operation.result(timeout=10)
    assert operation.cancelled() is True


def test_a_dispatch_lease_is_respected(cloud: CloudRun) -> None:
    """The reconciler does not dispatch a run before the dispatcher's lease expires."""
    with transaction.atomic(using=JobRun.objects.db):
        echo.Command().delay()
        JobRun.objects.update(created_at=LONG_AGO)
        transaction.on_commit(lambda: call_command("cloudrun_jobs", "reconcile"), using=JobRun.objects.db)

    assert len(cloud.requests) == 1


def test_a_retry_of_a_reserved_run_is_never_too_late(
    container: Container, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that has started is retried even a day after its time."""
    run = request("outcome", argv=["outcome", "text"])
    yesterday = datetime.now(UTC) - timedelta(hours=25)
    assert container.run("outcome", "error", run_id=str(run.pk)) == 1
    monkeypatch.setenv("CLOUDRUN_JOBS_RESERVED_FOR", yesterday.isoformat())

    assert container.run("outcome", "text", run_id=str(run.pk), attempt=1) == 0
    assert JobRun.objects.get().status == Status.SUCCEEDED


def test_a_key_whose_run_was_not_sent_is_dispatched_again(cloud: CloudRun) -> None:
    """A repeated call with the same key dispatches a run whose dispatch failed."""
    cloud.errors = [(grpc.StatusCode.PERMISSION_DENIED, "no")]
    with pytest.raises(AccessDenied):
        echo.Command().delay(idempotency_key="once")

    operation = echo.Command().delay(idempotency_key="once")
    assert (operation.run.status, len(cloud.requests), JobRun.objects.count()) == (Status.SENT, 2, 1)
    assert echo.Command().delay(idempotency_key="once").run_id == operation.run_id
    assert len(cloud.requests) == 2


def test_two_commands_of_a_scheduled_container_both_run(container: Container) -> None:
    """A script may run two jobs for one tick, which belongs to the first."""
    tick = "entry|0 * * * *|Asia/Tokyo"
    assert container.run("outcome", "text", schedule=tick) == 0
    assert container.run("echo", schedule=tick) == 0

    assert set(JobRun.objects.values_list("command", "status")) == {
        ("outcome", Status.SUCCEEDED),
        ("echo", Status.SUCCEEDED),
    }


def test_a_tick_whose_run_failed_can_be_repeated(container: Container) -> None:
    """A second execution of the tick works after the first one has failed."""
    tick = "entry|0 0 1 1 *|Asia/Tokyo"
    assert container.run("outcome", "error", schedule=tick, attempt=2) == 1
    assert container.run("outcome", "text", schedule=tick, execution=OTHER) == 0

    assert sorted(JobRun.objects.values_list("status", flat=True)) == [Status.FAILED, Status.SUCCEEDED]


def test_threads_of_a_job_are_nested() -> None:
    """Jobs that a job calls in threads have runs of their own."""
    seen = []
    with begin(request()):
        thread = Thread(target=lambda: seen.append(is_nested()))
        thread.start()
        thread.join()

    assert seen == [True]


def test_a_failed_attempt_with_retries_left_does_not_end_the_run() -> None:
    """While a task has retries left, the run is running although the other task has ended."""
    run = request("outcome")
    with pytest.raises(LookupError), begin(run, command="outcome", count=2):
        raise LookupError
    with begin(run, command="outcome", index=1, count=2):
        pass
    assert JobRun.objects.get().status == Status.RUNNING

    with begin(run, command="outcome", count=2, attempt=1):
        pass
    assert JobRun.objects.get().status == Status.SUCCEEDED


def test_a_claimed_run_is_not_recorded_as_failed(cloud: CloudRun, monkeypatch: pytest.MonkeyPatch) -> None:
    """delay() succeeds if an execution has claimed the run although no reply arrived."""

    def claims(backend: object, run: JobRun, request: object, **options: object) -> None:
        JobRun.objects.update(status=Status.RUNNING, execution=EXECUTION)
        raise QuotaExhausted("no answer")

    monkeypatch.setattr(type(current()), "submit", claims)

    assert echo.Command().delay().execution_name.endswith(EXECUTION)
    assert JobRun.objects.get().status == Status.RUNNING


def test_reconcile_continues_after_an_error(cloud: CloudRun, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error for one run is reported, and the other runs are reconciled."""
    for execution in (EXECUTION, OTHER):
        request("echo", environment="production", status=Status.SENT, execution=execution, sent_at=LONG_AGO)

    def denied(backend: object, run: JobRun) -> ExecutionState:
        if run.execution == EXECUTION:
            raise AccessDenied("no")
        return ExecutionState(status="failed", reason="exit_code")

    monkeypatch.setattr(type(current()), "get_state", denied)
    with pytest.raises(Exception, match="a permission is missing"):
        call_command("cloudrun_jobs", "reconcile")

    assert set(JobRun.objects.values_list("status", flat=True)) == {Status.SENT, Status.FAILED}


def test_reconcile_reports_runs_still_being_dispatched(
    cloud: CloudRun, capsys: pytest.CaptureFixture[str]
) -> None:
    """Runs with a dispatch lease are reported with its end; later they are dispatched."""
    JobRun.objects.all().delete()
    run = request("echo", environment="production", sending_until=datetime(2100, 1, 2, 3, 4, tzinfo=UTC))
    call_command("cloudrun_jobs", "reconcile")
    message = "1 still being dispatched, until 2100-01-02 12:04:00 JST. Run this again afterwards.\n"

    assert capsys.readouterr() == ("Nothing to do.\n", message)

    JobRun.objects.filter(pk=run.pk).update(sending_until=LONG_AGO)
    call_command("cloudrun_jobs", "reconcile")
    left = "`manage.py cloudrun_jobs runs --running` lists the unfinished runs.\n"
    assert capsys.readouterr() == ("1 sent.\n", left)


def test_an_unrequested_run_can_be_cancelled(cloud: CloudRun, container: Container) -> None:
    """An execution that was started elsewhere is cancelled by its recorded name."""
    run = request("echo", environment="production", status=Status.RUNNING, execution=EXECUTION)

    assert run.cancel() is True
    assert [name.rpartition("/")[2] for name in cloud.cancelled] == [EXECUTION]


def test_times_are_utc_in_any_session() -> None:
    """MySQL's CURRENT_TIMESTAMP is in the session's time zone."""
    before = datetime.now(UTC) - timedelta(minutes=1)
    run = request()
    run.update_if(Q(), started_at=Now())

    assert before < JobRun.objects.get().started_at < datetime.now(UTC) + timedelta(minutes=1)
    assert before < JobRun.objects.get().created_at < datetime.now(UTC) + timedelta(minutes=1)


@pytest.mark.parametrize("reason", ["timeout", "interrupted"])
def test_cancel_is_not_recorded_as_a_timeout(container: Container, reason: str) -> None:
    """After cancel(), SIGTERM is not taken for a timeout or a shutdown."""
    run = request("outcome")
    JobRun.objects.update(cancel_requested_at=LONG_AGO)
    with pytest.raises(JobInterrupted), begin(run, command="outcome"):
        raise JobInterrupted(reason)

    assert (JobRun.objects.get().status, JobRun.objects.get().reason) == (Status.CANCELLED, "cancelled")
    assert TaskRun.objects.get().status == Status.CANCELLED


CANCELLED = ExecutionState(status="cancelled", reason="cancelled", message="by a user", cancelled_count=1)


@pytest.mark.parametrize("reason", ["timeout", "interrupted"])
def test_cloud_run_reports_why_sigterm_came(reason: str) -> None:
    """A run that SIGTERM ended is cancelled once Cloud Run reports that, and keeps the error of the container."""
    run = request()
    with pytest.raises(JobInterrupted), begin(run):
        raise JobInterrupted(reason)
    assert (JobRun.objects.get().status, JobRun.objects.get().reason) == (Status.FAILED, reason)
    JobRun.objects.update(finished_at=LONG_AGO)

    assert run.apply_state(ExecutionState(status="failed", reason="failed"), EXECUTION) is False
    assert JobRun.objects.get().reason == reason
    assert run.apply_state(CANCELLED, OTHER) is False
    assert run.apply_state(CANCELLED, EXECUTION) is True
    run = JobRun.objects.get()
    assert (run.status, run.reason, run.cancelled_count) == (Status.CANCELLED, "cancelled", 1)
    assert (run.error_class, run.finished_at) == ("JobInterrupted", datetime(2026, 1, 1, tzinfo=UTC))
    assert list(run.tasks.values_list("status", "reason")) == [(Status.CANCELLED, "cancelled")]


@pytest.mark.parametrize("reason", ["error", "exit_code", "lock_lost", "out_of_memory", "failed", "task"])
def test_other_failures_stay_failures(reason: str) -> None:
    """Cloud Run's report of a cancellation does not override a failure of the work."""
    run = request(status=Status.FAILED, reason=reason, execution=EXECUTION)

    assert run.apply_state(CANCELLED, EXECUTION) is False
    assert JobRun.objects.get().status == Status.FAILED


def ended_by_the_service(run: JobRun, cloud: CloudRun, *, cancelled: bool) -> None:
    """Let SIGTERM end the run, and Cloud Run report whether it was cancelled."""
    JobRun.objects.update(status=Status.FAILED, reason="interrupted", finished_at=Now())
    cloud.execution.name = run.execution_name
    cloud.execution.task_count = 1
    cloud.execution.cancelled_count, cloud.execution.failed_count = int(cancelled), int(not cancelled)
    cloud.execution.completion_time = datetime.now(UTC)


@pytest.mark.parametrize(("cancelled", "status"), [(True, Status.CANCELLED), (False, Status.FAILED)])
def test_reconcile_queries_why_sigterm_came(cloud: CloudRun, cancelled: bool, status: Status) -> None:
    """Reconcile queries Cloud Run about an interrupted run, for an hour after its end."""
    run = echo.Command().delay().run
    ended_by_the_service(run, cloud, cancelled=cancelled)

    assert reconcile(current()) == {status: 1}
    assert JobRun.objects.get().status == status
    JobRun.objects.update(finished_at=LONG_AGO)
    assert reconcile(current()) == {}


def test_refresh_queries_why_sigterm_came(cloud: CloudRun) -> None:
    """refresh() of an interrupted run reads its execution."""
    run = echo.Command().delay().run
    ended_by_the_service(run, cloud, cancelled=True)

    assert run.refresh().status == Status.CANCELLED


def handle_on(name: str) -> Operation:
    """Return the handle on an execution, as the service's reply names it."""
    return current().operation(JobRun(command="echo", execution=name, execution_name=f"{PLACE}/{name}"))


def test_a_reply_does_not_override_a_claim(cloud: CloudRun) -> None:
    """A second execution may claim the run before the reply about the first one arrives."""
    run = request(status=Status.RUNNING, execution=OTHER)

    assert run.mark_sent(handle_on(EXECUTION)) is False
    assert JobRun.objects.get().execution == OTHER


def test_a_reply_does_not_reset_a_running_run(cloud: CloudRun) -> None:
    """If the container has claimed the run before the reply, the run gets its name and stays running."""
    run = request(status=Status.RUNNING, execution=EXECUTION)

    assert run.mark_sent(handle_on(EXECUTION)) is True
    run.refresh_from_db()
    assert (run.status, run.execution_name) == (Status.RUNNING, f"{PLACE}/{EXECUTION}")


def test_a_dispatched_run_belongs_to_its_execution() -> None:
    """Another execution with the same run id is superseded even if it starts first."""
    run = request(status=Status.SENT, execution=EXECUTION)
    with begin(run, execution=OTHER) as other, begin(run) as own:
        assert isinstance(other, AlreadyClaimed)
        assert isinstance(own, Attempt)


def test_the_containers_error_message_is_kept() -> None:
    """The service's message does not replace the error of the job."""
    run = request(status=Status.RUNNING, execution=EXECUTION, error_message="no such invoice")
    run.apply_state(
        ExecutionState(status="failed", reason="exit_code", message="The container exited with 1."), EXECUTION
    )

    run.refresh_from_db()
    assert (run.status, run.error_message) == (Status.FAILED, "no such invoice")


def test_a_retry_keeps_the_start_time() -> None:
    """A run starts with its first attempt."""
    run = request("outcome")
    with pytest.raises(LookupError), begin(run, command="outcome"):
        raise LookupError
    JobRun.objects.update(started_at=LONG_AGO)
    with begin(run, command="outcome", attempt=1):
        pass

    assert JobRun.objects.get().started_at.isoformat() == "2026-01-01T00:00:00+00:00"


def test_a_claim_whose_reply_was_lost_is_recognised(database: str) -> None:
    """A process recognises the task that it claimed before the connection broke."""
    lost: list[str] = []

    def lose(execute: Any, sql: str, *args: Any) -> Any:
        reply = execute(sql, *args)
        if sql.startswith("INSERT") and "taskrun" in sql and not lost:
            lost.append(sql)
            raise OperationalError("the reply was lost")
        return reply

    run = request()
    with connections[database].execute_wrapper(lose), begin(run) as attempt:
        assert isinstance(attempt, Attempt)

    assert (len(lost), JobRun.objects.get().status, TaskRun.objects.count()) == (1, Status.SUCCEEDED, 1)


def test_concurrent_reconcilers_do_not_send_twice(cloud: CloudRun, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that one reconciler has found pending may have been dispatched by the other."""
    submit, counted = type(current()).submit, []
    for _ in range(2):
        request(environment="production", sending_until=LONG_AGO)

    def submits(backend: Any, *args: Any, **options: Any) -> Any:
        monkeypatch.setattr(type(backend), "submit", submit)
        counted.append(reconcile(backend))
        return submit(backend, *args, **options)

    monkeypatch.setattr(type(current()), "submit", submits)
    counted.append(reconcile(current()))

    assert counted == [{"sent": 1}, {"sent": 1, "already claimed": 1}]
    assert len(cloud.requests) == 2


def test_runs_of_another_environment_are_left_alone(cloud: CloudRun) -> None:
    """Environments may share a database, and each reconciles its own runs."""
    request(environment="staging", sending_until=LONG_AGO)

    assert reconcile(current()) == {}
    assert cloud.requests == []
