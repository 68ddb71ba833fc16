"""From `delay()` to the execution: recorded with the caller's work, sent once it is committed, and once."""

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


def test_a_request_is_recorded_and_sent(cloud: CloudRun) -> None:
    """Outside of a transaction the execution is there when delay() returns, and the row names it."""
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


def test_the_row_is_there_before_the_request(cloud: CloudRun, database: str) -> None:
    """Whoever gets the request finds the row committed, and nobody holds it: no transaction spans a call."""
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
    """One that records the request, one that records the answer."""
    connections[database].ensure_connection()

    with django_assert_max_num_queries(2, connection=connections[database]):
        echo.Command().delay(partner=7)


def test_a_run_here_costs_six_queries(
    database: str, django_assert_max_num_queries: DjangoAssertNumQueries
) -> None:
    """A whole inline run, from the request to the outcome."""
    connections[database].ensure_connection()

    with django_assert_max_num_queries(6, connection=connections[database]):
        echo.Command().delay(partner=7)


def test_nothing_is_sent_before_the_commit(cloud: CloudRun, database: str) -> None:
    """Until then the run is pending, and its handle says that there is no execution yet."""
    with transaction.atomic(using=database):
        operation = echo.Command().delay()

        assert (cloud.requests, operation.run.status) == ([], Status.PENDING)
        assert (operation.execution_name, operation.done()) == ("", False)

    assert len(cloud.requests) == 1
    assert operation.run.status == Status.SENT
    assert operation.execution_name.endswith("/executions/echo-production-abcde")


def test_what_is_rolled_back_is_not_sent(cloud: CloudRun, database: str) -> None:
    """Neither the row nor the request outlives the caller's work."""
    with suppress(RollBack), transaction.atomic(using=database):
        echo.Command().delay()
        raise RollBack

    assert (cloud.requests, JobRun.objects.count()) == ([], 0)


def test_what_is_rolled_back_to_a_savepoint_is_not_sent(cloud: CloudRun, database: str) -> None:
    """Only what stood in the savepoint is gone."""
    with transaction.atomic(using=database):
        echo.Command().delay(partner=1)
        with suppress(RollBack), transaction.atomic(using=database):
            echo.Command().delay(partner=2)
            raise RollBack

    assert [run.argv for run in JobRun.objects.all()] == [["echo", "--partner=1"]]
    assert len(cloud.requests) == 1


def fail() -> None:
    raise RollBack


def test_another_hook_that_fails_later_stops_nothing(cloud: CloudRun, database: str) -> None:
    """The run was sent before."""
    with suppress(RollBack), transaction.atomic(using=database):
        echo.Command().delay()
        transaction.on_commit(fail, using=database)

    assert JobRun.objects.get().status == Status.SENT


def test_another_hook_that_fails_before_loses_nothing(cloud: CloudRun, database: str) -> None:
    """Django calls no hook after one that raised; the run is sent by who looks after runs."""
    with suppress(RollBack), transaction.atomic(using=database):
        transaction.on_commit(fail, using=database)
        echo.Command().delay()
    JobRun.objects.update(sending_until=LONG_AGO)

    assert cloud.requests == []
    assert reconcile(current()) == {"sent": 1}
    assert JobRun.objects.get().status == Status.SENT


@pytest.mark.parametrize(
    ("error", "kind"),
    [(UNAVAILABLE, OutcomeUnknown), (DENIED, AccessDenied), ((Code.NOT_FOUND, "none"), JobNotDeployed)],
)
def test_a_failure_reaches_the_caller(cloud: CloudRun, error: tuple[Code, str], kind: type[ServiceError]) -> None:
    """Outside of a transaction delay() raises, and the run has failed: it is not sent behind the caller's back."""
    cloud.errors = [error] * 20
    with pytest.raises(kind):
        echo.Command().delay()
    JobRun.objects.update(sending_until=LONG_AGO)

    run = JobRun.objects.get()
    assert (run.status, run.reason, run.error_class) == (Status.FAILED, "not_sent", kind.__name__)
    assert run.finished_at is not None
    cloud.errors = []
    assert reconcile(current()) == {}


def test_a_failure_after_the_commit_that_may_pass_is_postponed(
    cloud: CloudRun, database: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The request that was committed goes on undisturbed; the run stays pending, and is sent later."""
    cloud.errors = [UNAVAILABLE] * 20
    with caplog.at_level(logging.WARNING, "cloudrun_jobs"), transaction.atomic(using=database):
        operation = echo.Command().delay()
    JobRun.objects.update(sending_until=LONG_AGO)

    assert [record.__dict__["action"] for record in caplog.records] == ["dispatch_postponed"]
    assert operation.run.status == Status.PENDING
    cloud.errors = []
    assert reconcile(current()) == {"sent": 1}
    assert operation.run.status == Status.SENT


def test_a_failure_after_the_commit_that_lasts_is_recorded(
    cloud: CloudRun, database: str, caplog: pytest.LogCaptureFixture
) -> None:
    """What will be refused the next time too has failed, with the service's words."""
    cloud.errors = [DENIED] * 20
    with caplog.at_level(logging.WARNING, "cloudrun_jobs"), transaction.atomic(using=database):
        operation = echo.Command().delay()

    assert [record.__dict__["action"] for record in caplog.records] == ["dispatch_failed"]
    run = operation.run
    assert (run.status, run.error_class) == (Status.FAILED, "AccessDenied")
    assert "permission denied" in run.error_message
    assert operation.done()


@pytest.mark.parametrize("code", [Code.UNAVAILABLE, Code.INTERNAL, Code.DEADLINE_EXCEEDED])
def test_an_execution_whose_answer_was_lost_is_adopted(cloud: CloudRun, code: Code) -> None:
    """It is looked for by the run's id, found and taken; nothing is started twice."""
    cloud.errors_after = [(code, "the answer was lost")]
    operation = echo.Command().delay()

    assert (len(cloud.requests), cloud.searches) == (1, 1)
    assert operation.run.status == Status.SENT
    assert operation.run.execution == "echo-production-abcde"


def test_a_request_that_was_not_carried_out_is_sent_again(cloud: CloudRun) -> None:
    """After an unclear answer with nothing to find; others' executions are not taken for it."""
    echo.Command().delay()
    cloud.errors = [UNAVAILABLE]
    operation = echo.Command().delay()

    assert (len(cloud.requests), cloud.searches) == (3, 1)
    assert operation.run.execution == "echo-production-00003"


def test_a_quota_that_ran_out_is_waited_for(cloud: CloudRun) -> None:
    """A refusal for want of quota leaves nothing to look for."""
    cloud.errors = [(Code.RESOURCE_EXHAUSTED, "too many")]
    operation = echo.Command().delay()

    assert (len(cloud.requests), cloud.searches) == (2, 0)
    assert operation.run.status == Status.SENT


def test_what_the_caller_saw_fail_is_not_done(
    cloud: CloudRun, container: Container, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An execution that started though nobody could find it out steps aside for the failure it is known as."""
    cloud.errors_after, cloud.errors_of_searches = [UNAVAILABLE], [DENIED]
    with pytest.raises(AccessDenied):
        echo.Command().delay()
    monkeypatch.setattr(echo.Command, "run", lambda self, **options: pytest.fail("worked"))

    run = JobRun.objects.get()
    assert container.run("echo", run_id=str(run.pk), execution="echo-production-abcde") == 0
    assert JobRun.objects.get().status == Status.FAILED


def test_the_same_key_is_the_same_run(cloud: CloudRun) -> None:
    """Asked for twice under one key, it is sent once."""
    first = echo.Command().delay(partner=7, idempotency_key="invoice-7")
    second = echo.Command().delay(partner=7, idempotency_key="invoice-7")

    assert second.run == first.run
    assert second.execution_name == first.execution_name
    assert len(cloud.requests) == 1


def test_the_same_key_is_the_same_result() -> None:
    """Inline too: the second handle has the outcome of the first run."""
    first = echo.Command().delay(partner=7, idempotency_key="invoice-7")
    second = echo.Command().delay(partner=7, idempotency_key="invoice-7")

    assert second.run == first.run
    assert second.result() == first.result() == {"words": [], "partner": 7, "note": None}


def test_one_key_asked_for_at_once_is_one_run(cloud: CloudRun, database: str) -> None:
    """The database decides who asked first."""

    def ask(number: int) -> str:
        try:
            return echo.Command().delay(idempotency_key="once").run_id
        finally:
            connections[database].close()  # This thread's.

    with ThreadPoolExecutor(6) as pool:
        asked = set(pool.map(ask, range(6)))

    assert len(asked) == len(cloud.requests) == JobRun.objects.count() == 1


def test_a_key_in_a_transaction(cloud: CloudRun, database: str) -> None:
    """The conflict of keys leaves the caller's transaction as it was."""
    first = echo.Command().delay(idempotency_key="once")
    with transaction.atomic(using=database):
        second = echo.Command().delay(idempotency_key="once")
        other = echo.Command().delay(idempotency_key="twice")

    assert second.run == first.run
    assert other.run.status == Status.SENT


def test_keys_of_two_jobs_are_two(cloud: CloudRun) -> None:
    """A key is the job's own."""
    echo.Command().delay(idempotency_key="once")
    outcome.Command().delay("none", idempotency_key="once")

    assert len(cloud.requests) == 2


def test_a_key_for_other_arguments_is_refused(cloud: CloudRun) -> None:
    """The caller learns that the key does not tell its runs apart; nothing is sent."""
    echo.Command().delay(partner=7, idempotency_key="once")

    with pytest.raises(
        InvalidArguments, match=r"'once' was used with other arguments, for run .*values that identify the run"
    ):
        echo.Command().delay(partner=8, idempotency_key="once")
    assert len(cloud.requests) == 1


@pytest.mark.parametrize("key", ["", "x" * 201, "a\0b", "\ud800", 7], ids=["empty", "long", "nul", "half", "int"])
def test_a_key_that_cannot_be_kept_is_refused(cloud: CloudRun, key: Any) -> None:
    """By every database, before anything is recorded or sent."""
    with pytest.raises(
        InvalidArguments, match="echo: expected an idempotency_key of 1 to 200 characters of text, got"
    ):
        echo.Command().delay(idempotency_key=key)
    assert (cloud.requests, JobRun.objects.count()) == ([], 0)


@pytest.mark.parametrize("other", ["Once", "once ", "oncé"])
def test_keys_that_look_alike_are_two(cloud: CloudRun, other: str) -> None:
    """Some databases compare text without its case; a key is its very characters."""
    first = echo.Command().delay(idempotency_key="once")
    second = echo.Command().delay(idempotency_key=other)

    assert first.run != second.run
    assert echo.Command().delay(idempotency_key=other).run == second.run


@pytest.fixture
def _short_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a minute last half a second."""
    monkeypatch.setattr(quota, "MINUTE", 0.5)


@pytest.mark.usefixtures("_short_minute")
def test_more_than_the_quota_waits(cloud: CloudRun, settings: Settings) -> None:
    """Seven requests at two a minute are seven executions and no error, and take three minutes."""
    options = {**settings.CLOUDRUN_JOBS["OPTIONS"], "runs_per_minute": 2}
    settings.CLOUDRUN_JOBS = {**settings.CLOUDRUN_JOBS, "OPTIONS": options}
    started = time.monotonic()
    for number in range(7):
        echo.Command().delay(partner=number)

    assert time.monotonic() - started >= 1.5
    assert len(cloud.requests) == 7
    assert set(JobRun.objects.values_list("status", flat=True)) == {Status.SENT}


def test_a_receiver_that_fails_loses_nothing(cloud: CloudRun) -> None:
    """The record is written whatever the signals' receivers do."""

    def receiver(**kwargs: Any) -> None:
        raise RollBack

    job_delayed.connect(receiver)
    try:
        echo.Command().delay()
    finally:
        job_delayed.disconnect(receiver)

    assert JobRun.objects.get().status == Status.SENT
