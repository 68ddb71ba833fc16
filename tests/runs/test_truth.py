"""What would make a record lie: ends that are another's, and work that is left out or done again."""

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
from cloudrun_jobs.execution.attempt import Attempt, is_nested
from cloudrun_jobs.execution.claim import AlreadyClaimed
from cloudrun_jobs.models import JobRun, Status, TaskRun
from cloudrun_jobs.models.functions import Now
from cloudrun_jobs.operations import ExecutionState, Operation
from cloudrun_jobs.runs.reconcile import reconcile
from tests.backends.server import CloudRun
from tests.jobs.management.commands import echo
from tests.runs.conftest import EXECUTION, OTHER, Container, begin, request

LONG_AGO = "2026-01-01T00:00:00Z"
PLACE = "projects/acme/locations/europe-west4/jobs/echo-test/executions"


def test_another_executions_end_is_not_the_runs() -> None:
    """An execution that stepped aside succeeded; the one that works may yet fail."""
    run = request(status=Status.RUNNING, execution=EXECUTION)

    assert run.apply_state(ExecutionState(status="succeeded"), OTHER) is False
    assert JobRun.objects.get().status == Status.RUNNING


def test_a_handle_follows_the_execution_that_works(cloud: CloudRun) -> None:
    """The handle on a duplicate does not end with it."""
    operation = echo.Command().delay()
    JobRun.objects.update(execution=OTHER, status=Status.RUNNING)
    cloud.execution.succeeded_count = 1
    cloud.execution.completion_time = datetime.now(UTC)

    assert operation.done() is False
    assert operation.execution_name.endswith(OTHER)
    cloud.execution.name = operation.execution_name
    assert operation.done() is True


def test_a_run_that_was_cancelled_is_so_on_its_handle(cloud: CloudRun) -> None:
    """Its container stepped aside with status 0, which is no success."""
    operation = echo.Command().delay()
    JobRun.objects.update(status=Status.CANCELLED, reason="cancelled")
    cloud.execution.succeeded_count = 1
    cloud.execution.completion_time = datetime.now(UTC)

    with pytest.raises(JobFailed):
        operation.result(timeout=10)
    assert operation.cancelled() is True


def test_a_sender_that_is_alive_is_left_alone(cloud: CloudRun) -> None:
    """A request is its sender's for two minutes, however long ago it was recorded."""
    with transaction.atomic(using=JobRun.objects.db):
        echo.Command().delay()
        JobRun.objects.update(created_at=LONG_AGO)
        transaction.on_commit(lambda: call_command("cloudrun_jobs", "reconcile"), using=JobRun.objects.db)

    assert len(cloud.requests) == 1


def test_a_retry_of_a_reserved_run_is_never_too_late(
    container: Container, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What has begun goes on, a day after its time as well."""
    run = request("outcome", argv=["outcome", "text"])
    yesterday = datetime.now(UTC) - timedelta(hours=25)
    assert container.run("outcome", "error", run_id=str(run.pk)) == 1
    monkeypatch.setenv("CLOUDRUN_JOBS_RESERVED_FOR", yesterday.isoformat())

    assert container.run("outcome", "text", run_id=str(run.pk), attempt=1) == 0
    assert JobRun.objects.get().status == Status.SUCCEEDED


def test_a_key_whose_run_was_not_sent_is_sent(cloud: CloudRun) -> None:
    """To ask again with the same key is what the key is for."""
    cloud.errors = [(grpc.StatusCode.PERMISSION_DENIED, "no")]
    with pytest.raises(AccessDenied):
        echo.Command().delay(idempotency_key="once")

    operation = echo.Command().delay(idempotency_key="once")
    assert (operation.run.status, len(cloud.requests), JobRun.objects.count()) == (Status.SENT, 2, 1)
    assert echo.Command().delay(idempotency_key="once").run_id == operation.run_id
    assert len(cloud.requests) == 2


def test_another_command_of_a_scheduled_container_runs_too(container: Container) -> None:
    """A script that runs two jobs runs both; the tick is the first one's."""
    tick = "entry|0 * * * *|Asia/Tokyo"
    assert container.run("outcome", "text", schedule=tick) == 0
    assert container.run("echo", schedule=tick) == 0

    assert set(JobRun.objects.values_list("command", "status")) == {
        ("outcome", Status.SUCCEEDED),
        ("echo", Status.SUCCEEDED),
    }


def test_a_tick_whose_run_failed_can_be_forced(container: Container) -> None:
    """Its work is not done, and somebody wants it done."""
    tick = "entry|0 0 1 1 *|Asia/Tokyo"
    assert container.run("outcome", "error", schedule=tick, attempt=2) == 1
    assert container.run("outcome", "text", schedule=tick, execution=OTHER) == 0

    assert sorted(JobRun.objects.values_list("status", flat=True)) == [Status.FAILED, Status.SUCCEEDED]


def test_a_job_that_calls_jobs_in_threads() -> None:
    """They are runs of their own, as one that it calls itself is."""
    seen = []
    with begin(request()):
        thread = Thread(target=lambda: seen.append(is_nested()))
        thread.start()
        thread.join()

    assert seen == [True]


def test_a_failed_attempt_does_not_end_the_run_with_the_other_tasks() -> None:
    """While a task is tried again, the run goes on, whatever the others do."""
    run = request("outcome")
    with pytest.raises(LookupError), begin(run, command="outcome", count=2):
        raise LookupError
    with begin(run, command="outcome", index=1, count=2):
        pass
    assert JobRun.objects.get().status == Status.RUNNING

    with begin(run, command="outcome", count=2, attempt=1):
        pass
    assert JobRun.objects.get().status == Status.SUCCEEDED


def test_a_request_that_was_carried_out_is_no_failure(cloud: CloudRun, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its execution claimed the run while the caller got no answer and could not ask for it."""

    def claims(backend: object, asked: object, **options: object) -> None:
        JobRun.objects.update(status=Status.RUNNING, execution=EXECUTION)
        raise QuotaExhausted("no answer")

    monkeypatch.setattr(type(current()), "submit", claims)

    assert echo.Command().delay().execution_name.endswith(EXECUTION)
    assert JobRun.objects.get().status == Status.RUNNING


def test_one_run_does_not_stop_the_looking_after_of_others(
    cloud: CloudRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each run is looked after, and what went wrong is told."""
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


def test_reconcile_tells_of_runs_that_are_their_senders(
    cloud: CloudRun, capsys: pytest.CaptureFixture[str]
) -> None:
    """For two minutes nobody knows a dead sender from a slow one; after that the run is sent."""
    JobRun.objects.all().delete()
    run = request("echo", environment="production", sending_until=datetime(2100, 1, 2, 3, 4, tzinfo=UTC))
    call_command("cloudrun_jobs", "reconcile")
    words = "1 still being dispatched, until 2100-01-02 12:04:00 JST. Run this again afterwards.\n"

    assert capsys.readouterr() == ("Nothing to do.\n", words)

    JobRun.objects.filter(pk=run.pk).update(sending_until=LONG_AGO)
    call_command("cloudrun_jobs", "reconcile")
    assert capsys.readouterr() == ("1 sent.\n", "")


def test_a_run_of_a_schedule_can_be_cancelled(cloud: CloudRun, container: Container) -> None:
    """The execution that nobody here asked for is known by the name that it told."""
    run = request("echo", environment="production", status=Status.RUNNING, execution=EXECUTION)

    assert run.cancel() is True
    assert [name.rpartition("/")[2] for name in cloud.cancelled] == [EXECUTION]


def test_times_are_utc_in_any_session() -> None:
    """MySQL's own clock is its session's."""
    before = datetime.now(UTC) - timedelta(minutes=1)
    run = request()
    run.update_if(Q(), started_at=Now())

    assert before < JobRun.objects.get().started_at < datetime.now(UTC) + timedelta(minutes=1)
    assert before < JobRun.objects.get().created_at < datetime.now(UTC) + timedelta(minutes=1)


def test_a_cancelled_task_is_not_told_as_out_of_time(container: Container) -> None:
    """Who cancelled the run here is known, though SIGTERM does not say why it comes."""
    run = request("outcome")
    JobRun.objects.update(cancel_requested_at=LONG_AGO)
    with pytest.raises(JobInterrupted), begin(run, command="outcome"):
        raise JobInterrupted("timeout")

    assert (JobRun.objects.get().status, JobRun.objects.get().reason) == (Status.CANCELLED, "cancelled")
    assert TaskRun.objects.get().status == Status.CANCELLED


def answered(name: str) -> Operation:
    """Return the handle on an execution, as the service's answer gives it."""
    return current().operation(JobRun(command="echo", execution=name, execution_name=f"{PLACE}/{name}"))


def test_an_answer_does_not_take_a_run_from_who_has_claimed_it(cloud: CloudRun) -> None:
    """An execution that was started twice may claim its run before the answer about the other one is there."""
    run = request(status=Status.RUNNING, execution=OTHER)

    assert run.mark_sent(answered(EXECUTION)) is False
    assert JobRun.objects.get().execution == OTHER


def test_an_answer_does_not_stop_a_run_that_has_begun(cloud: CloudRun) -> None:
    """A container may be faster than the answer about it: the run gets its name and goes on."""
    run = request(status=Status.RUNNING, execution=EXECUTION)

    assert run.mark_sent(answered(EXECUTION)) is True
    run.refresh_from_db()
    assert (run.status, run.execution_name) == (Status.RUNNING, f"{PLACE}/{EXECUTION}")


def test_a_run_that_was_sent_is_its_executions() -> None:
    """Another execution that is told the same run steps aside, though it comes first."""
    run = request(status=Status.SENT, execution=EXECUTION)
    with begin(run, execution=OTHER) as other, begin(run) as own:
        assert isinstance(other, AlreadyClaimed)
        assert isinstance(own, Attempt)


def test_what_the_container_said_is_kept() -> None:
    """The service's words on its end do not replace the error of the job."""
    run = request(status=Status.RUNNING, execution=EXECUTION, error_message="no such invoice")
    run.apply_state(
        ExecutionState(status="failed", reason="exit_code", message="The container exited with 1."), EXECUTION
    )

    run.refresh_from_db()
    assert (run.status, run.error_message) == (Status.FAILED, "no such invoice")


def test_a_retry_keeps_the_time_of_the_start() -> None:
    """A run began when its first attempt did."""
    run = request("outcome")
    with pytest.raises(LookupError), begin(run, command="outcome"):
        raise LookupError
    JobRun.objects.update(started_at=LONG_AGO)
    with begin(run, command="outcome", attempt=1):
        pass

    assert JobRun.objects.get().started_at.isoformat() == "2026-01-01T00:00:00+00:00"


def test_a_claim_whose_answer_was_lost_is_known(database: str) -> None:
    """The database did what it was asked to, and the connection broke: it is this process's task all the same."""
    lost: list[str] = []

    def lose(execute: Any, sql: str, *args: Any) -> Any:
        answer = execute(sql, *args)
        if sql.startswith("INSERT") and "taskrun" in sql and not lost:
            lost.append(sql)
            raise OperationalError("the answer was lost")
        return answer

    run = request()
    with connections[database].execute_wrapper(lose), begin(run) as attempt:
        assert isinstance(attempt, Attempt)

    assert (len(lost), JobRun.objects.get().status, TaskRun.objects.count()) == (1, Status.SUCCEEDED, 1)


def test_of_two_who_look_after_runs_each_sends_what_the_other_did_not(
    cloud: CloudRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What one has found unsent may be the other's by the time it comes to it."""
    start, counted = type(current()).start, []
    for _ in range(2):
        request(environment="production", sending_until=LONG_AGO)

    def starts(backend: Any, asked: Any, **options: Any) -> Any:
        monkeypatch.setattr(type(backend), "submit", start)
        counted.append(reconcile(backend))
        return start(backend, asked, **options)

    monkeypatch.setattr(type(current()), "submit", starts)
    counted.append(reconcile(current()))

    assert counted == [{"sent": 1}, {"sent": 1, "another's": 1}]
    assert len(cloud.requests) == 2


def test_another_environments_runs_are_let_be(cloud: CloudRun) -> None:
    """Two environments may share a database: each looks after its own."""
    request(environment="staging", sending_until=LONG_AGO)

    assert reconcile(current()) == {}
    assert cloud.requests == []
