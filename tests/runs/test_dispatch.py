"""Dispatch: recorded in the caller's transaction, sent once, after the commit."""

from __future__ import annotations

import logging
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import grpc
import pytest
from django.db import connections, transaction
from pytest_django import Settings
from pytest_django.fixtures import DjangoAssertNumQueries

from cloudrun_jobs import InvalidArguments
from cloudrun_jobs.backends import current
from cloudrun_jobs.backends.cloudrun import quota
from cloudrun_jobs.exceptions import AccessDenied, JobNotDeployed, OutcomeUnknown, ServiceError
from cloudrun_jobs.models import JobRun, Status, Trigger
from cloudrun_jobs.runs.reconcile import reconcile
from cloudrun_jobs.runs.requester import requested_by
from cloudrun_jobs.signals import job_delayed
from tests.backends.server import CloudRun
from tests.jobs.management.commands import echo, outcome
from tests.runs.conftest import Container

Code = grpc.StatusCode
UNAVAILABLE = (Code.UNAVAILABLE, "try again")
DENIED = (Code.PERMISSION_DENIED, "no")
LONG_AGO = "2026-01-01T00:00:00Z"


class RollBack(Exception):
    """Makes a block roll back."""


def test_a_request_is_recorded_and_dispatched(cloud: CloudRun) -> None:
    """Outside a transaction, the execution exists when delay() returns, and the record names it."""
    with requested_by("ada"):
        operation = echo.Command().delay("word", partner=7)

    run = operation.run
    assert (run.status, run.trigger, run.requested_by) == (Status.SENT, Trigger.DELAY, "ada")
    assert (run.command, run.environment) == ("echo", "production")
    assert run.argv == ["echo", "--partner=7", "--", "word"]
    assert run.execution_name == operation.execution_name
    assert run.execution == "echo-production-abcde"
    assert run.created_at <= run.sent_at
    assert (run.started_at, run.finished_at) == (None, None)


def test_the_record_is_committed_before_the_request(cloud: CloudRun, database: str) -> None:
    """The container can update the record: no transaction spans the call."""
    touched: list[int] = []

    def touch() -> None:
        touched.append(JobRun.objects.filter(status=Status.PENDING).update(log_uri="seen"))
        connections[database].close()  # This thread's.

    cloud.on_request = touch
    operation = echo.Command().delay()

    assert touched == [1]
    assert operation.run.status == Status.SENT


def test_delay_costs_two_queries(
    cloud: CloudRun, database: str, django_assert_max_num_queries: DjangoAssertNumQueries
) -> None:
    """One query records the request, one the execution."""
    connections[database].ensure_connection()

    with django_assert_max_num_queries(2, connection=connections[database]):
        echo.Command().delay(partner=7)


def test_an_inline_run_costs_six_queries(
    database: str, django_assert_max_num_queries: DjangoAssertNumQueries
) -> None:
    """An inline run costs six queries from the request to the outcome."""
    connections[database].ensure_connection()

    with django_assert_max_num_queries(6, connection=connections[database]):
        echo.Command().delay(partner=7)


def test_nothing_is_dispatched_before_the_commit(cloud: CloudRun, database: str) -> None:
    """Until the commit, the run is pending and its handle has no execution."""
    with transaction.atomic(using=database):
        operation = echo.Command().delay()

        assert (cloud.requests, operation.run.status) == ([], Status.PENDING)
        assert (operation.execution_name, operation.done()) == ("", False)

    assert len(cloud.requests) == 1
    assert operation.run.status == Status.SENT
    assert operation.execution_name.endswith("/executions/echo-production-abcde")


def test_a_rolled_back_run_is_not_dispatched(cloud: CloudRun, database: str) -> None:
    """After a rollback there is neither a record nor a request."""
    with suppress(RollBack), transaction.atomic(using=database):
        echo.Command().delay()
        raise RollBack

    assert (cloud.requests, JobRun.objects.count()) == ([], 0)


def test_a_run_rolled_back_to_a_savepoint_is_not_dispatched(cloud: CloudRun, database: str) -> None:
    """Only the run inside the savepoint is dropped."""
    with transaction.atomic(using=database):
        echo.Command().delay(partner=1)
        with suppress(RollBack), transaction.atomic(using=database):
            echo.Command().delay(partner=2)
            raise RollBack

    assert [run.argv for run in JobRun.objects.all()] == [["echo", "--partner=1"]]
    assert len(cloud.requests) == 1


def fail() -> None:
    raise RollBack


def test_a_failing_hook_after_the_dispatch(cloud: CloudRun, database: str) -> None:
    """The run is dispatched although a later hook fails."""
    with suppress(RollBack), transaction.atomic(using=database):
        echo.Command().delay()
        transaction.on_commit(fail, using=database)

    assert JobRun.objects.get().status == Status.SENT


def test_a_failing_hook_before_the_dispatch(cloud: CloudRun, database: str) -> None:
    """Django skips the hooks after a failing one; the reconciler dispatches the run."""
    with suppress(RollBack), transaction.atomic(using=database):
        transaction.on_commit(fail, using=database)
        echo.Command().delay()
    JobRun.objects.update(sending_until=LONG_AGO)

    assert cloud.requests == []
    assert reconcile(current()) == {"sent": 1}
    assert JobRun.objects.get().status == Status.SENT


@pytest.mark.parametrize(("error", "kind"), [(DENIED, AccessDenied), ((Code.NOT_FOUND, "none"), JobNotDeployed)])
def test_a_failure_reaches_the_caller(cloud: CloudRun, error: tuple[Code, str], kind: type[ServiceError]) -> None:
    """Outside a transaction, delay() raises, and the failed run is not dispatched later."""
    cloud.errors = [error] * 20
    with pytest.raises(kind):
        echo.Command().delay()
    JobRun.objects.update(sending_until=LONG_AGO)

    run = JobRun.objects.get()
    assert (run.status, run.reason, run.error_class) == (Status.FAILED, "not_sent", kind.__name__)
    assert run.finished_at is not None
    cloud.errors = []
    assert reconcile(current()) == {}


def test_no_response_is_not_called_not_sent(cloud: CloudRun, container: Container) -> None:
    """The run has failed, the error names it, and an execution that has started all the same does no work."""
    cloud.errors = [UNAVAILABLE] * 20
    cloud.errors_of_searches = [UNAVAILABLE] * 20
    with pytest.raises(OutcomeUnknown) as caught:
        echo.Command().delay(idempotency_key="once")
    cloud.errors, cloud.errors_of_searches = [], []

    run = JobRun.objects.get()
    assert (run.status, run.reason, run.error_class) == (Status.FAILED, "no_response", "OutcomeUnknown")
    assert str(caught.value).endswith("The run has failed: an execution that starts now does no work.")
    JobRun.objects.update(sending_until=LONG_AGO)
    assert reconcile(current()) == {}
    assert container.run("echo", run_id=str(run.pk)) == 0
    run.refresh_from_db()
    assert (run.status, run.started_at) == (Status.FAILED, None)
    assert echo.Command().delay(idempotency_key="once").run.status == Status.SENT


def test_a_transient_failure_after_the_commit_postpones(
    cloud: CloudRun, database: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The caller is not disturbed; the run stays pending, and the reconciler dispatches it."""
    cloud.errors = [UNAVAILABLE] * 20
    with caplog.at_level(logging.WARNING, "cloudrun_jobs"), transaction.atomic(using=database):
        operation = echo.Command().delay()
    JobRun.objects.update(sending_until=LONG_AGO)

    assert [record.__dict__["action"] for record in caplog.records] == ["dispatch_postponed"]
    assert operation.run.status == Status.PENDING
    cloud.errors = []
    assert reconcile(current()) == {"sent": 1}
    assert operation.run.status == Status.SENT


def test_a_permanent_failure_after_the_commit_is_recorded(
    cloud: CloudRun, database: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A run whose dispatch would always be refused fails with the service's message."""
    cloud.errors = [DENIED] * 20
    with caplog.at_level(logging.WARNING, "cloudrun_jobs"), transaction.atomic(using=database):
        operation = echo.Command().delay()

    assert [record.__dict__["action"] for record in caplog.records] == ["dispatch_failed"]
    run = operation.run
    assert (run.status, run.error_class) == (Status.FAILED, "AccessDenied")
    assert "permission denied" in run.error_message
    assert operation.done()


@pytest.mark.parametrize("code", [Code.UNAVAILABLE, Code.INTERNAL, Code.DEADLINE_EXCEEDED])
def test_an_execution_whose_reply_was_lost_is_adopted(cloud: CloudRun, code: Code) -> None:
    """The execution is found by the run's id; nothing is started twice."""
    cloud.errors_after = [(code, "the reply was lost")]
    operation = echo.Command().delay()

    assert (len(cloud.requests), cloud.searches) == (1, 1)
    assert operation.run.status == Status.SENT
    assert operation.run.execution == "echo-production-abcde"


def test_a_request_that_started_nothing_is_repeated(cloud: CloudRun) -> None:
    """After an unclear reply without an execution of the run, the request is sent again."""
    echo.Command().delay()
    cloud.errors = [UNAVAILABLE]
    operation = echo.Command().delay()

    assert (len(cloud.requests), cloud.searches) == (3, 1)
    assert operation.run.execution == "echo-production-00003"


def test_an_exhausted_quota_is_waited_for(cloud: CloudRun) -> None:
    """After an exhausted quota, the request is sent again without a search."""
    cloud.errors = [(Code.RESOURCE_EXHAUSTED, "too many")]
    operation = echo.Command().delay()

    assert (len(cloud.requests), cloud.searches) == (2, 0)
    assert operation.run.status == Status.SENT


def test_a_run_recorded_as_failed_does_not_start(
    cloud: CloudRun, container: Container, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An execution that started unnoticed is superseded by the recorded failure."""
    cloud.errors_after, cloud.errors_of_searches = [UNAVAILABLE], [DENIED]
    with pytest.raises(AccessDenied):
        echo.Command().delay()
    monkeypatch.setattr(echo.Command, "run", lambda self, **options: pytest.fail("worked"))

    run = JobRun.objects.get()
    assert container.run("echo", run_id=str(run.pk), execution="echo-production-abcde") == 0
    assert JobRun.objects.get().status == Status.FAILED


def test_the_same_key_is_the_same_run(cloud: CloudRun) -> None:
    """Two calls with one key dispatch one run."""
    first = echo.Command().delay(partner=7, idempotency_key="invoice-7")
    second = echo.Command().delay(partner=7, idempotency_key="invoice-7")

    assert second.run == first.run
    assert second.execution_name == first.execution_name
    assert len(cloud.requests) == 1


def test_the_same_key_is_the_same_result() -> None:
    """Inline, the second handle has the result of the first run."""
    first = echo.Command().delay(partner=7, idempotency_key="invoice-7")
    second = echo.Command().delay(partner=7, idempotency_key="invoice-7")

    assert second.run == first.run
    assert second.result() == first.result() == {"words": [], "partner": 7, "note": None}


def test_concurrent_calls_with_one_key_are_one_run(cloud: CloudRun, database: str) -> None:
    """Of concurrent calls with one key, one records the run."""

    def call(number: int) -> str:
        try:
            return echo.Command().delay(idempotency_key="once").run_id
        finally:
            connections[database].close()  # This thread's.

    with ThreadPoolExecutor(6) as pool:
        run_ids = set(pool.map(call, range(6)))

    assert len(run_ids) == len(cloud.requests) == JobRun.objects.count() == 1


def test_a_key_in_a_transaction(cloud: CloudRun, database: str) -> None:
    """A conflict of keys leaves the caller's transaction usable."""
    first = echo.Command().delay(idempotency_key="once")
    with transaction.atomic(using=database):
        second = echo.Command().delay(idempotency_key="once")
        other = echo.Command().delay(idempotency_key="twice")

    assert second.run == first.run
    assert other.run.status == Status.SENT


def test_keys_belong_to_a_job(cloud: CloudRun) -> None:
    """The same key of two jobs stands for two runs."""
    echo.Command().delay(idempotency_key="once")
    outcome.Command().delay("none", idempotency_key="once")

    assert len(cloud.requests) == 2


def test_a_key_with_other_arguments_is_refused(cloud: CloudRun) -> None:
    """A key that was used with other arguments raises, and nothing is dispatched."""
    echo.Command().delay(partner=7, idempotency_key="once")

    with pytest.raises(
        InvalidArguments, match=r"'once' was used with other arguments, for run .*values that identify the run"
    ):
        echo.Command().delay(partner=8, idempotency_key="once")
    assert len(cloud.requests) == 1


@pytest.mark.parametrize("key", ["", "x" * 201, "a\0b", "\ud800", 7], ids=["empty", "long", "nul", "half", "int"])
def test_an_invalid_key_is_refused(cloud: CloudRun, key: Any) -> None:
    """An invalid key raises before anything is recorded or dispatched."""
    with pytest.raises(
        InvalidArguments, match="echo: idempotency_key: expected a string of 1 to 200 characters, got"
    ):
        echo.Command().delay(idempotency_key=key)
    assert (cloud.requests, JobRun.objects.count()) == ([], 0)


@pytest.mark.parametrize("other", ["Once", "once ", "oncé"])
def test_similar_keys_are_distinct(cloud: CloudRun, other: str) -> None:
    """Keys are exact, although some databases ignore case and accents."""
    first = echo.Command().delay(idempotency_key="once")
    second = echo.Command().delay(idempotency_key=other)

    assert first.run != second.run
    assert echo.Command().delay(idempotency_key=other).run == second.run


@pytest.fixture
def _short_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the minute of the quota to half a second."""
    monkeypatch.setattr(quota, "WINDOW_SECONDS", 0.5)


@pytest.mark.usefixtures("_short_minute")
def test_more_than_the_quota_waits(cloud: CloudRun, settings: Settings) -> None:
    """Seven requests at two per minute take three minutes and raise no error."""
    options = {**settings.CLOUDRUN_JOBS["OPTIONS"], "runs_per_minute": 2}
    settings.CLOUDRUN_JOBS = {**settings.CLOUDRUN_JOBS, "OPTIONS": options}
    started = time.monotonic()
    for number in range(7):
        echo.Command().delay(partner=number)

    assert time.monotonic() - started >= 1.5
    assert len(cloud.requests) == 7
    assert set(JobRun.objects.values_list("status", flat=True)) == {Status.SENT}


def test_a_failing_receiver_is_ignored(cloud: CloudRun) -> None:
    """The run is dispatched although a signal receiver raises."""

    def receiver(**kwargs: Any) -> None:
        raise RollBack

    job_delayed.connect(receiver)
    try:
        echo.Command().delay()
    finally:
        job_delayed.disconnect(receiver)

    assert JobRun.objects.get().status == Status.SENT
