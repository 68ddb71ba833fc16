"""Reserved runs whose container fails before it begins, and services that do not answer."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from threading import Event
from typing import Any

import grpc
import pytest
from google.cloud import run_v2, scheduler_v1
from google.cloud.run_v2 import Condition, Execution
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pytest_django import Settings

from cloudrun_jobs import backends
from cloudrun_jobs.backends.cloudrun import CloudRunBackend
from cloudrun_jobs.execution import deadlines
from cloudrun_jobs.models import JobRun, Status, Trigger
from cloudrun_jobs.runs import reservations
from cloudrun_jobs.runs.reconcile import reconcile
from cloudrun_jobs.spec.tick import ScheduleTick, is_over
from tests.backends.server import CloudRun
from tests.jobs.management.commands import echo
from tests.runs.conftest import EXECUTION, Container, request

pytestmark = pytest.mark.parametrize("database", ["sqlite"], indirect=True)

PARENT = "projects/acme/locations/europe-west4/jobs/echo-production/executions"
UNAVAILABLE = (grpc.StatusCode.UNAVAILABLE, "not now")
FAILED = Condition(type_="Completed", state=Condition.State.CONDITION_FAILED, message="The image is missing")


@pytest.fixture(autouse=True)
def _account(settings: Settings, cloud: CloudRun) -> None:
    place = settings.CLOUDRUN_JOBS
    options = {**place["OPTIONS"], "scheduler_service_account": "starter@acme.iam.gserviceaccount.com"}
    settings.CLOUDRUN_JOBS = {**place, "OPTIONS": options}


def reserved(due: timedelta = timedelta(minutes=-5), **values: Any) -> JobRun:
    """Record a run with a reservation, due so long from now."""
    fields = {"trigger": Trigger.RESERVE, "schedule": "the-reservation", "environment": "production"}
    return request(scheduled_for=datetime.now(UTC) + due, **fields | values)


def started(cloud: CloudRun, run: JobRun, *, has_failed: bool) -> None:
    """Let the reservation have started an execution, whose container has not claimed the run."""
    env = [run_v2.EnvVar(name="CLOUDRUN_JOBS_RUN_ID", value=str(run.pk))]
    template = run_v2.TaskTemplate(containers=[run_v2.Container(env=env)])
    cloud.started = [Execution(name=f"{PARENT}/{EXECUTION}", task_count=1, template=template)]
    cloud.execution = Execution(name=f"{PARENT}/{EXECUTION}", task_count=1)
    if has_failed:
        cloud.execution.conditions = [FAILED]
        cloud.execution.failed_count = 1


@pytest.mark.parametrize("due", [timedelta(minutes=-5), timedelta(days=-3)])
def test_a_reserved_run_whose_container_failed_before_it_began(cloud: CloudRun, due: timedelta) -> None:
    """`reconcile` finds its execution, records the failure and deletes the reservation."""
    run = reserved(due)
    started(cloud, run, has_failed=True)

    assert reconcile(backends.current()) == {"failed": 1}

    run.refresh_from_db()
    assert (run.status, run.execution, run.schedule) == (Status.FAILED, EXECUTION, None)
    assert (run.error_message, cloud.unreserved) == ("The image is missing", ["the-reservation"])
    assert reconcile(backends.current()) == {}


def test_a_reserved_run_whose_container_is_starting(cloud: CloudRun, container: Container) -> None:
    """It is recorded as sent, keeps its reservation, and its container claims it."""
    run = reserved()
    started(cloud, run, has_failed=False)
    assert reconcile(backends.current()) == {"under way": 1}
    run.refresh_from_db()
    assert (run.status, run.execution, run.schedule) == (Status.SENT, EXECUTION, "the-reservation")

    assert container.run("echo", run_id=str(run.pk)) == 0

    run.refresh_from_db()
    assert (run.status, run.schedule, cloud.unreserved) == (Status.SUCCEEDED, None, ["the-reservation"])


@pytest.mark.parametrize(
    ("due", "result"),
    [(timedelta(minutes=5), None), (timedelta(seconds=-30), None), (timedelta(hours=-5), "reserved")],
)
def test_a_reservation_that_started_nothing_is_kept_for_a_day(
    cloud: CloudRun, due: timedelta, result: str | None
) -> None:
    """Cloud Scheduler may still start it, so it stays pending."""
    run = reserved(due)

    assert reconcile(backends.current()) == ({result: 1} if result else {})

    run.refresh_from_db()
    assert (run.status, run.schedule) == (Status.PENDING, "the-reservation")


@pytest.mark.parametrize("error", [UNAVAILABLE, (grpc.StatusCode.NOT_FOUND, "no such job")])
def test_a_late_reservation_is_lost_even_if_its_execution_cannot_be_searched(
    cloud: CloudRun, error: tuple[grpc.StatusCode, str]
) -> None:
    """The job may have been deleted since."""
    run = reserved(timedelta(days=-2))
    cloud.errors_of_searches = [error]

    assert reconcile(backends.current()) == {"lost": 1}

    run.refresh_from_db()
    assert (run.status, run.reason, run.schedule) == (Status.LOST, "never_started", None)


def test_an_overdue_reservation_waits_for_the_service(cloud: CloudRun) -> None:
    """An error of the search leaves the run as it is."""
    run = reserved()
    cloud.errors_of_searches = [UNAVAILABLE]

    assert reconcile(backends.current()) == {"unknown": 1}

    run.refresh_from_db()
    assert (run.status, run.schedule) == (Status.PENDING, "the-reservation")


@pytest.fixture
def hanging(cloud: CloudRun, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Cloud Scheduler accepts DeleteJob and does not answer."""
    cloud.hold_deletions = answered = Event()
    monkeypatch.setattr(reservations, "UNRESERVE_TIMEOUT_SECONDS", 0.5)
    yield
    answered.set()


@pytest.mark.usefixtures("hanging")
def test_a_run_does_not_wait_for_its_reservation(cloud: CloudRun, container: Container) -> None:
    """The exit status is that of the work, within a second; `reconcile` deletes the reservation."""
    run = reserved()
    before = time.monotonic()

    assert container.run("echo", run_id=str(run.pk)) == 0

    assert time.monotonic() - before < 5
    run.refresh_from_db()
    assert (run.status, run.schedule) == (Status.SUCCEEDED, "the-reservation")
    assert len(cloud.unreserved) == 1
    cloud.hold_deletions = None
    assert reconcile(backends.current()) == {"succeeded": 1}
    run.refresh_from_db()
    assert run.schedule is None


@pytest.mark.parametrize("failure", [None, RuntimeError("credentials"), MemoryError()])
def test_a_deletion_that_hangs_or_breaks_does_not_change_the_outcome(
    cloud: CloudRun, container: Container, monkeypatch: pytest.MonkeyPatch, failure: Exception | None
) -> None:
    """Neither a search for credentials that hangs, nor any error of it."""
    hangs = Event()

    def unreserve(*args: Any, **options: Any) -> None:
        if failure is not None:
            raise failure
        hangs.wait(30)

    monkeypatch.setattr(CloudRunBackend, "unreserve", unreserve)
    monkeypatch.setattr(deadlines, "UNRESERVE_LIMIT_SECONDS", 0.3)
    run, before = reserved(), time.monotonic()

    assert container.run("echo", run_id=str(run.pk)) == 0

    hangs.set()
    assert time.monotonic() - before < 5
    run.refresh_from_db()
    assert run.status == Status.SUCCEEDED


def test_an_unavailable_scheduler_is_asked_once(cloud: CloudRun, container: Container) -> None:
    """Google's own retries of ten minutes are off."""
    run = reserved()
    cloud.errors_of_deletions = [UNAVAILABLE] * 100

    assert container.run("echo", run_id=str(run.pk)) == 0

    assert cloud.unreserved == ["the-reservation"]


@pytest.mark.parametrize("has_due_time", [False, True])
def test_an_answer_without_a_due_time(cloud: CloudRun, has_due_time: bool) -> None:
    """The reservation is kept: its minute has not come."""
    operation = None
    if has_due_time:
        cloud.scheduler_job = scheduler_v1.Job(schedule_time=datetime.now(UTC) + timedelta(hours=1))
    operation = echo.Command().reserve(timedelta(hours=1))

    run = operation.run
    assert (run.status, cloud.unreserved, cloud.requests) == (Status.PENDING, [], [])
    assert run.schedule


def test_a_reservation_that_is_due_next_year_is_sent_now(cloud: CloudRun) -> None:
    """The minute had begun when Cloud Scheduler created the job."""
    cloud.scheduler_job = scheduler_v1.Job(schedule_time=datetime.now(UTC) + timedelta(days=365))
    run = echo.Command().reserve(timedelta(minutes=1)).run

    assert (run.status, run.schedule, len(cloud.unreserved), len(cloud.requests)) == (Status.SENT, None, 1, 1)


def test_a_success_that_was_recorded_is_the_result(cloud: CloudRun) -> None:
    """A container that is killed after its record does not make its work fail."""
    run = request(
        environment="production",
        status=Status.SUCCEEDED,
        result="done",
        execution=EXECUTION,
        execution_name=f"{PARENT}/{EXECUTION}",
    )
    cloud.execution = Execution(task_count=1, failed_count=1, completion_time=Timestamp(seconds=1))

    assert run.operation.result(timeout=30) == "done"
    run.refresh_from_db()
    assert run.status == Status.SUCCEEDED


PARTS = st.one_of(
    st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]), max_size=20),
    st.sampled_from(["0 * * * *", "Asia/Tokyo", "..", "/etc/passwd", "Etc", "j" * 201, "0 0 30 2 *", "9" * 400]),
)
TEXTS = st.one_of(PARTS, st.lists(PARTS, min_size=2, max_size=4).map("|".join))


@hypothesis_settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=TEXTS)
def test_no_text_of_a_tick_keeps_the_job_from_its_work(container: Container, text: str) -> None:
    """A malformed variable is no tick; the run is recorded, and ends."""
    JobRun.objects.all().delete()

    assert container.run("echo", schedule=text) == 0

    assert JobRun.objects.get().status in {Status.SUCCEEDED, Status.SKIPPED}


@pytest.mark.parametrize("name", ["j" * 201, "", "\udcff", "two words", "jobs/entry", "夜間"])
def test_a_tick_names_a_scheduler_job(name: str) -> None:
    """Other names would not fit into the record."""
    assert ScheduleTick.decode(f"{name}|0 * * * *|Etc/UTC") is None


@pytest.mark.parametrize("text", ["soon", "2026-01-01", "2026-01-01T00:00", "\udcff", "9999-12-31T23:59:59Z", ""])
def test_a_malformed_time_is_not_over(text: str) -> None:
    """A container with a malformed variable runs its job."""
    assert is_over(text) is False
