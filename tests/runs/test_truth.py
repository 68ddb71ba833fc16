"""What would make a record lie: ends that are another's, and work that is left out or done again."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from threading import Thread

import grpc
import pytest
from django.core.management import call_command
from django.db import transaction
from django.db.models import Q

from cloudrun_jobs.backends import current
from cloudrun_jobs.exceptions import AccessDenied, JobFailed, JobInterrupted, QuotaExhausted
from cloudrun_jobs.models import JobRun, Status, TaskRun
from cloudrun_jobs.models.clock import Now
from cloudrun_jobs.operations import Observation
from cloudrun_jobs.runs.attempts import within_another
from tests.cloudrun.server import CloudRun
from tests.jobs.management.commands import echo

from .conftest import EXECUTION, OTHER, Container, begin, request

LONG_AGO = "2026-01-01T00:00:00Z"


def test_another_executions_end_is_not_the_runs() -> None:
    """An execution that stepped aside succeeded; the one that works may yet fail."""
    run = request(status=Status.RUNNING, execution=EXECUTION)

    assert run.settle(Observation(status="succeeded"), OTHER) is False
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
        thread = Thread(target=lambda: seen.append(within_another()))
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

    monkeypatch.setattr(type(current()), "start", claims)

    assert echo.Command().delay().execution_name.endswith(EXECUTION)
    assert JobRun.objects.get().status == Status.RUNNING


def test_one_run_does_not_stop_the_looking_after_of_others(
    cloud: CloudRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each run is looked after, and what went wrong is told."""
    for execution in (EXECUTION, OTHER):
        request("echo", environment="production", status=Status.SENT, execution=execution, sent_at=LONG_AGO)

    def denied(backend: object, run: JobRun) -> Observation:
        if run.execution == EXECUTION:
            raise AccessDenied("no")
        return Observation(status="failed", reason="exit_code")

    monkeypatch.setattr(type(current()), "observe", denied)
    with pytest.raises(Exception, match="want of a permission"):
        call_command("cloudrun_jobs", "reconcile")

    assert set(JobRun.objects.values_list("status", flat=True)) == {Status.SENT, Status.FAILED}


def test_reconcile_tells_of_runs_that_are_their_senders(
    cloud: CloudRun, capsys: pytest.CaptureFixture[str]
) -> None:
    """For two minutes nobody knows a dead sender from a slow one; after that the run is sent."""
    JobRun.objects.all().delete()
    run = request("echo", environment="production", sending_until=datetime(2100, 1, 2, 3, 4, tzinfo=UTC))
    call_command("cloudrun_jobs", "reconcile")
    words = "1 not sent yet, left to the sender until 2100-01-02 12:04:00 JST. Then run this again.\n"

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
    run.write(Q(), started_at=Now())

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
