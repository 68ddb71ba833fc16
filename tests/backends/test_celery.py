"""Runs go to the queues of a real broker: one message each, which only names the run."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterator
from datetime import timedelta
from io import StringIO
from typing import Any
from uuid import UUID

import pytest
from celery import Celery
from django.core.checks import CheckMessage, run_checks
from django.core.management import call_command
from django.db import transaction
from django.utils import timezone
from pytest_django import Settings
from redis import Redis

from cloudrun_jobs import backends
from cloudrun_jobs.backends.celery import CeleryBackend
from cloudrun_jobs.backends.cloudrun import CloudRunBackend
from cloudrun_jobs.backends.inline import InlineBackend
from cloudrun_jobs.exceptions import (
    CloudRunJobsError,
    InvalidJob,
    InvalidSettings,
    JobCancelled,
    ServiceUnavailable,
)
from cloudrun_jobs.execution.delivery import deliver, receive
from cloudrun_jobs.models import JobRun, Status, TaskRun, Trigger
from cloudrun_jobs.models.functions import Now
from cloudrun_jobs.registry import find_job
from cloudrun_jobs.runs.reconcile import reconcile_all
from tests.backends import celery_app
from tests.jobs.management.commands import echo, outcome, tasks
from tests.servers.process import free_port

QUEUES = ("ingest", "ai_analysis")
LONG_AGO = timedelta(hours=2)


class Broker:
    """A view of the broker's queues."""

    def __init__(self, url: str) -> None:
        self.client = Redis.from_url(url)

    def messages(self, queue: str = "ingest") -> list[dict[str, Any]]:
        """Return the messages of a queue, oldest first: their headers and, as "body", their arguments."""
        found = [json.loads(each) for each in reversed(self.client.lrange(queue, 0, -1))]  # type: ignore[arg-type]
        return [{**each["headers"], "body": json.loads(base64.b64decode(each["body"]))} for each in found]

    def ids(self, queue: str = "ingest") -> list[str]:
        return [message["id"] for message in self.messages(queue)]


@pytest.fixture
def broker(redis_url: str, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[Broker]:
    """Send the jobs of a cloud environment to the queues of a Redis server."""
    url = redis_url.rpartition("/")[0] + "/7"
    monkeypatch.setattr(celery_app, "app", Celery("tests", broker=url, set_as_current=False))
    configure(settings)
    broker = Broker(url)
    broker.client.flushdb()
    yield broker
    broker.client.flushdb()
    broker.client.close()


def configure(settings: Settings, **options: Any) -> None:
    options = {"app": "tests.backends.celery_app.app", "queues": QUEUES, "send_deadline": 2, **options}
    celery = {"BACKEND": "cloudrun_jobs.backends.celery.CeleryBackend", "OPTIONS": options}
    place = {"ENVIRONMENT": "production", "PROJECT": "acme", "REGION": "europe-west4"}
    settings.CLOUDRUN_JOBS = {**place, "BACKENDS": {"celery": celery}, "ROUTES": {"ec*": "celery"}}


def deliver_all(broker: Broker, queue: str = "ingest") -> None:
    """Do what a worker does with each message."""
    for message in broker.messages(queue):
        run_id, _, index = message["id"].partition(".")
        run = JobRun.objects.get(pk=run_id)
        task = None if index == "reduce" else int(index or 0)
        deliver(find_job(run.command), receive(run, task, "celery@test/1"))  # type: ignore[arg-type]
    broker.client.delete(queue)


def make_old(run: JobRun, age: timedelta = LONG_AGO) -> None:
    JobRun.objects.filter(pk=run.pk).update(sent_at=Now() - age, created_at=Now() - age)


def found(messages: list[CheckMessage]) -> dict[str, CheckMessage]:
    return {str(message.id): message for message in messages}


def test_the_message_names_the_run(broker: Broker) -> None:
    """It has the id of the run, its time limits, and nothing of its arguments."""
    operation = echo.Command().delay(partner=7)

    (message,) = broker.messages()
    assert (message["task"], message["id"]) == ("cloudrun_jobs.run", operation.run_id)
    assert message["body"][:2] == [[operation.run_id], {}]
    assert message["timelimit"] == [608, 600]
    assert "partner" not in json.dumps(message)
    run = operation.run
    assert (run.status, run.backend, run.queue) == (Status.SENT, "celery", "ingest")
    assert run.execution == run.execution_name == operation.execution_name == operation.run_id


def test_the_handle_follows_the_record(broker: Broker) -> None:
    """It is done when the worker has recorded the outcome, and returns the result."""
    operation = echo.Command().delay(partner=7)

    assert not operation.done()

    deliver_all(broker)

    assert operation.done()
    assert operation.result()["partner"] == 7
    assert operation.metadata.succeeded_count == 1


def test_the_message_follows_the_commit(broker: Broker) -> None:
    """In a transaction, the message is sent after the commit."""
    with transaction.atomic():
        operation = echo.Command().delay()
        before = broker.ids()

    # The test's own transaction is never committed.
    assert before == []
    assert operation.run.status == Status.PENDING


@pytest.mark.parametrize(("declared", "queue"), [(None, "ingest"), ("ai_analysis", "ai_analysis")])
def test_a_job_names_its_queue(
    broker: Broker, monkeypatch: pytest.MonkeyPatch, declared: str | None, queue: str
) -> None:
    """The first known queue is that of jobs that name none."""
    monkeypatch.setattr(echo.Command, "queue", declared, raising=False)

    operation = echo.Command().delay()

    assert broker.ids(queue) == [operation.run_id]


def test_using_reaches_the_worker(broker: Broker) -> None:
    """`using()` sets the number of messages, and the time limits."""
    operation = echo.Command().using(tasks=3, timeout=60, env={"ECHO_TO_STDOUT": "1"}).delay()

    assert broker.ids() == [f"{operation.run_id}.{index}" for index in range(3)]
    assert {tuple(message["timelimit"]) for message in broker.messages()} == {(68, 60)}


def test_several_tasks_share_a_run(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each task is a message, and the last one to end calls `reduce()`."""
    monkeypatch.setattr(tasks.Command, "backend", "celery", raising=False)
    operation = tasks.Command().delay()

    deliver_all(broker)

    assert operation.result() == [0, 1]


def test_each_element_is_a_message(broker: Broker) -> None:
    """The elements of `delay_many()` have their own arguments and results."""
    operation = echo.Command().delay_many([{"partner": 1}, {"partner": 2}])

    deliver_all(broker)

    assert [result["partner"] for result in operation.results()] == [1, 2]


def test_failed_tasks_are_repeated(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    """`rerun(failed_only=True)` sends a message for the failed share only."""
    monkeypatch.setattr(tasks.Command, "backend", "celery", raising=False)
    monkeypatch.setattr(tasks.Command, "max_retries", 0)
    operation = tasks.Command().delay(fail_task=1, fail_attempts=1)
    deliver_all(broker)
    assert operation.run.status == Status.FAILED
    rerun = operation.run.rerun(failed_only=True)

    assert len(broker.ids()) == 1
    assert rerun.run.backend == "celery"


def test_an_unavailable_broker_is_an_error(broker: Broker) -> None:
    """`delay()` raises within its deadline; the message hides the password of the broker's URL."""
    celery_app.app.conf.broker_url = f"redis://:s3cr%40t@127.0.0.1:{free_port()}/0"
    began = time.monotonic()

    with pytest.raises(ServiceUnavailable, match=r"The broker redis://:\*\*@127\.0\.0\.1") as caught:
        echo.Command().delay()

    assert time.monotonic() - began < 20
    assert "s3cr" not in str(caught.value)
    run = JobRun.objects.get()
    assert (run.status, run.reason) == (Status.FAILED, "not_sent")
    assert "s3cr" not in run.error_message


def test_a_run_that_was_never_sent_is_sent_by_reconcile(broker: Broker) -> None:
    """The sender may have died after the record."""
    with transaction.atomic():
        operation = echo.Command().delay()
    JobRun.objects.update(sending_until=Now() - LONG_AGO)

    results = reconcile_all()

    assert results == {"sent": 1}
    assert broker.ids() == [operation.run_id]


def test_a_lost_message_is_sent_again(broker: Broker) -> None:
    """Redis was restarted empty: the runs are sent again, and less and less often."""
    operation = echo.Command().delay()
    broker.client.flushdb()
    assert reconcile_all() == {}
    make_old(operation.run)

    assert reconcile_all() == {"redelivered": 1}
    assert reconcile_all() == {}
    assert broker.ids() == [operation.run_id]
    assert JobRun.objects.filter(sending_until__gt=Now() + timedelta(minutes=50)).exists()


def test_a_message_that_waits_is_not_sent_again(broker: Broker) -> None:
    """All workers are busy, and the queue is long: it has all of its messages."""
    first, second = echo.Command().delay(partner=1), echo.Command().delay(partner=2)
    make_old(first.run, timedelta(minutes=30))

    assert reconcile_all() == {"waiting": 1}
    assert broker.ids() == [first.run_id, second.run_id]


def test_a_long_queue_hides_a_lost_message_for_an_hour(broker: Broker) -> None:
    """Its messages may be those of other tasks."""
    lost, other = echo.Command().delay(partner=1), echo.Command().delay(partner=2)
    make_old(lost.run)

    assert reconcile_all() == {"redelivered": 1}
    assert broker.ids() == [lost.run_id, other.run_id, lost.run_id]


def test_waiting_tasks_of_a_running_run_are_not_sent_again(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the tasks without a message, or without a heartbeat, are."""
    monkeypatch.setattr(echo.Command, "tasks", 3, raising=False)
    operation = echo.Command().delay()
    make_old(operation.run, timedelta(minutes=30))
    JobRun.objects.update(status=Status.RUNNING, started_at=Now() - timedelta(minutes=30))
    TaskRun.objects.create(run=operation.run, index=0, worker=UUID(int=1), heartbeat_at=Now())
    broker.client.rpop("ingest")  # That of the running task.

    assert reconcile_all() == {"waiting": 1}
    assert len(broker.ids()) == 2


def test_a_silent_worker_is_replaced(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the silent task of a run is sent again."""
    monkeypatch.setattr(tasks.Command, "backend", "celery", raising=False)
    operation = tasks.Command().delay()
    run, old = operation.run, Now() - LONG_AGO
    broker.client.flushdb()
    JobRun.objects.update(status=Status.RUNNING, started_at=old)
    TaskRun.objects.create(run=run, index=0, worker=UUID(int=1), heartbeat_at=Now())
    TaskRun.objects.create(run=run, index=1, worker=UUID(int=2), heartbeat_at=old)

    assert reconcile_all() == {"redelivered": 1}
    assert broker.ids() == [f"{run.pk}.1"]


def test_a_run_whose_tasks_have_all_ended_is_ended(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process of the last task died before it ended the run."""
    monkeypatch.setattr(echo.Command, "tasks", 2, raising=False)
    operation = echo.Command().delay()
    run, old = operation.run, Now() - LONG_AGO
    JobRun.objects.update(status=Status.RUNNING, started_at=old)
    for index in range(2):
        TaskRun.objects.create(
            run=run, index=index, worker=UUID(int=1), status=Status.SUCCEEDED, finished_at=old, heartbeat_at=old
        )

    assert reconcile_all() == {"succeeded": 1}


def test_reduce_of_a_dead_process_is_repeated(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    """A message of its own calls `reduce()` if the process that called it died."""
    monkeypatch.setattr(tasks.Command, "backend", "celery", raising=False)
    operation = tasks.Command().delay()
    run, old = operation.run, Now() - LONG_AGO
    broker.client.flushdb()
    JobRun.objects.update(status=Status.RUNNING, started_at=old, reduces=True, reducer=UUID(int=1))
    for index in range(2):
        TaskRun.objects.create(
            run=run,
            index=index,
            worker=UUID(int=1),
            status=Status.SUCCEEDED,
            finished_at=old,
            heartbeat_at=old,
            result=index,
        )

    assert reconcile_all() == {"reducing": 1}
    assert broker.ids() == [f"{run.pk}.reduce"]

    deliver_all(broker)
    assert operation.result() == [0, 1]


def test_a_near_reservation_is_sent_with_an_eta(broker: Broker) -> None:
    """The message waits in a worker for less than half of the visibility timeout; the row is kept."""
    before = timezone.now()
    operation = echo.Command().reserve(timedelta(minutes=10), partner=7)

    (message,) = broker.messages()
    assert operation.run.scheduled_for - before < timedelta(minutes=10, seconds=20)  # No whole minute.
    assert message["eta"] == operation.run.scheduled_for.isoformat()
    assert operation.run.status == Status.PENDING

    JobRun.objects.update(scheduled_for=Now())
    deliver_all(broker)
    assert operation.result()["partner"] == 7


def test_a_far_reservation_is_sent_when_due(broker: Broker) -> None:
    """`reconcile` sends it: no message waits for hours."""
    operation = echo.Command().reserve(timedelta(hours=5))

    assert broker.ids() == []
    assert reconcile_all() == {}

    JobRun.objects.update(scheduled_for=timezone.now() - timedelta(seconds=1))
    assert reconcile_all() == {"sent": 1}
    assert broker.ids() == [operation.run_id]
    assert operation.run.status == Status.SENT


def test_a_cancelled_run_is_dropped(broker: Broker) -> None:
    """A run that waits in the queue is cancelled in its record; its message starts nothing."""
    operation = echo.Command().delay()

    assert operation.cancel()
    deliver_all(broker)

    with pytest.raises(JobCancelled):
        operation.result()
    assert operation.run.status == Status.CANCELLED


def test_a_cancellation_needs_no_broker(broker: Broker) -> None:
    """The row comes first: the worker's heartbeat reads it."""
    operation = echo.Command().delay()
    JobRun.objects.update(status=Status.RUNNING, started_at=Now())
    celery_app.app.conf.broker_url = f"redis://127.0.0.1:{free_port()}/0"

    assert operation.run.cancel()
    assert operation.run.cancel_requested_at is not None


@pytest.mark.parametrize(
    ("routes", "declared", "expected"),
    [
        ({}, None, CloudRunBackend),
        ({"echo": "celery"}, None, CeleryBackend),
        ({"e*": "celery"}, "default", CloudRunBackend),
        ({"x*": "default", "*": "celery"}, None, CeleryBackend),
        ({"e*": "default", "*": "celery"}, None, CloudRunBackend),
        ({}, "celery", CeleryBackend),
    ],
)
def test_settings_choose_the_backend(
    broker: Broker,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    routes: dict[str, str],
    declared: str | None,
    expected: type,
) -> None:
    """The first route that matches chooses, unless the class does."""
    settings.CLOUDRUN_JOBS = {**settings.CLOUDRUN_JOBS, "ROUTES": routes}
    monkeypatch.setattr(echo.Command, "backend", declared, raising=False)

    assert type(backends.for_job(echo.Command().spec)) is expected


@pytest.mark.parametrize("environment", ["local", "test"])
@pytest.mark.parametrize("is_default", [False, True])
def test_local_environments_run_inline(
    broker: Broker, settings: Settings, environment: str, *, is_default: bool
) -> None:
    """No message is sent in the environments local and test, even if Celery is the default backend."""
    default = settings.CLOUDRUN_JOBS["BACKENDS"]["celery"] if is_default else {}
    settings.CLOUDRUN_JOBS = {**settings.CLOUDRUN_JOBS, **default, "ENVIRONMENT": environment}

    assert echo.Command().delay(partner=7).result()["partner"] == 7
    assert broker.ids() == []


def test_celery_can_be_disabled(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    """With DISABLE_CELERY, runs are inline in every environment, and a check says so."""
    monkeypatch.setenv("DISABLE_CELERY", "true")

    assert isinstance(backends.for_job(echo.Command().spec), InlineBackend)
    assert echo.Command().delay(partner=7).result()["partner"] == 7
    assert broker.ids() == []
    assert "cloudrun_jobs.W014" in found(run_checks(tags=["cloudrun_jobs"]))


def test_runs_of_a_disabled_backend_wait(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    """The workers may still be there: a run that was sent is not lost."""
    operation = echo.Command().delay()
    make_old(operation.run)
    monkeypatch.setenv("DISABLE_CELERY", "true")

    assert reconcile_all() == {}
    assert operation.run.status == Status.SENT


@pytest.mark.parametrize("value", ["yes", "tru", "2"])
def test_an_unclear_switch_is_an_error(broker: Broker, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    """A misspelt DISABLE_CELERY is not ignored."""
    monkeypatch.setenv("DISABLE_CELERY", value)

    with pytest.raises(InvalidSettings, match="DISABLE_CELERY: expected 'true' or 'false'"):
        echo.Command().delay()


def test_a_misspelt_broker_url_is_an_error(broker: Broker) -> None:
    """At the call, and in the checks."""
    celery_app.app.conf.broker_url = "redsi://127.0.0.1/0"

    assert "cloudrun_jobs.E030" in found(run_checks(tags=["cloudrun_jobs"]))
    with pytest.raises(CloudRunJobsError):
        echo.Command().delay()


def test_the_result_backend_is_not_needed(broker: Broker) -> None:
    """Celery would wait for it before it sends."""
    celery_app.app.conf.result_backend = f"redis://127.0.0.1:{free_port()}/0"

    operation = echo.Command().delay()

    assert broker.ids() == [operation.run_id]


def test_a_result_in_the_transaction_of_the_request_is_an_error(broker: Broker) -> None:
    """The message is sent after the commit, so the wait would never end."""
    with transaction.atomic():
        operation = echo.Command().delay()

        with pytest.raises(CloudRunJobsError, match="its request is sent once the transaction"):
            operation.result()


@pytest.mark.parametrize("aliases", [["default"], [""], ["two words"], ["x" * 64]])
def test_an_invalid_alias_is_an_error(broker: Broker, settings: Settings, aliases: list[str]) -> None:
    """Records keep it, and "default" is the backend of BACKEND."""
    celery = settings.CLOUDRUN_JOBS["BACKENDS"]["celery"]
    others = {"BACKENDS": dict.fromkeys(aliases, celery), "ROUTES": {}}
    settings.CLOUDRUN_JOBS = {**settings.CLOUDRUN_JOBS, **others}

    assert "expected aliases of up to 63" in found(run_checks(tags=["cloudrun_jobs"]))["cloudrun_jobs.E001"].msg


def test_a_run_of_the_backend_that_was_the_default_is_lost(broker: Broker, settings: Settings) -> None:
    """Its execution is not one of Celery, which can neither find nor repeat it."""
    run = echo.Command().delay().run
    make_old(run)
    JobRun.objects.update(execution="echo-production-x7k2p")

    assert reconcile_all() == {"lost": 1}


def test_an_unknown_alias_is_an_error(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is recorded, and in the checks."""
    monkeypatch.setattr(echo.Command, "backend", "celerey", raising=False)

    with pytest.raises(InvalidSettings, match=r"echo: CLOUDRUN_JOBS\['BACKENDS'\]: no backend 'celerey'\."):
        echo.Command().delay()
    assert not JobRun.objects.exists()
    check = found(run_checks(tags=["cloudrun_jobs"]))["cloudrun_jobs.E026"]
    assert check.hint == "Did you mean 'celery'?"


@pytest.mark.parametrize(
    ("declared", "attribute", "check"),
    [
        ({"queue": "ingets"}, "queue", "cloudrun_jobs.E027"),
        ({"tasks": 2, "task_parallelism": 2}, "task_parallelism", "cloudrun_jobs.E028"),
    ],
)
def test_what_would_mean_something_else_is_refused(
    broker: Broker, monkeypatch: pytest.MonkeyPatch, declared: dict[str, Any], attribute: str, check: str
) -> None:
    """At `delay()`, and by the checks, in every environment."""
    for name, value in declared.items():
        monkeypatch.setattr(echo.Command, name, value, raising=False)

    with pytest.raises(InvalidJob, match=f"{attribute}: expected"):
        echo.Command().delay()
    assert check in found(run_checks(tags=["cloudrun_jobs"]))


def test_a_route_without_a_job_is_reported(broker: Broker, settings: Settings) -> None:
    """Its pattern may be misspelt, and the job would stay where it is."""
    settings.CLOUDRUN_JOBS = {**settings.CLOUDRUN_JOBS, "ROUTES": {"ehco": "celery", "ec*": "celery"}}

    warning = found(run_checks(tags=["cloudrun_jobs"]))["cloudrun_jobs.W017"]
    assert (warning.msg, warning.hint) == (
        "CLOUDRUN_JOBS['ROUTES']: 'ehco' matches no job.",
        "Did you mean 'echo'?",
    )


def test_ignored_declarations_are_reported_once(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker has its own CPU and image."""
    monkeypatch.setattr(echo.Command, "cpu", "2", raising=False)
    monkeypatch.setattr(echo.Command, "image", "shop:1", raising=False)

    warning = found(run_checks(tags=["cloudrun_jobs"]))["cloudrun_jobs.W013"]
    assert warning.msg == "echo: CeleryBackend ignores cpu, image."


@pytest.mark.parametrize(
    ("seconds", "is_refused"), [(1200, True), (1201, False), (None, False), ("abc", True), (0, True)]
)
def test_a_short_visibility_timeout_is_refused(broker: Broker, seconds: Any, *, is_refused: bool) -> None:
    """It must be above twice the longest timeout of the jobs, here 600 seconds."""
    options = {} if seconds is None else {"visibility_timeout": seconds}
    celery_app.app.conf.broker_transport_options = options

    assert ("cloudrun_jobs.E029" in found(run_checks(tags=["cloudrun_jobs"]))) is is_refused


def test_an_app_without_a_broker_is_an_error(broker: Broker, settings: Settings) -> None:
    """Celery would use RabbitMQ on this machine."""
    configure(settings, app="tests.backends.celery_app.without_broker")

    with pytest.raises(InvalidSettings, match="has no broker URL"):
        echo.Command().delay()
    assert "cloudrun_jobs.E030" in found(run_checks(tags=["cloudrun_jobs"]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"app": "tests.nothing.app"}, "No module named"),
        ({"app": "tests.backends.test_celery.QUEUES"}, "is not a Celery app"),
        ({"queues": "ingest"}, "expected a list of the names of queues"),
        ({"queues": ["x" * 64]}, "expected a list of the names of queues"),
        ({"disabled": "false"}, "disabled: expected True or False"),
        ({"send_deadline": 0}, "expected a number from 1 to 10000"),
        ({"brokr": 1}, "has no option 'brokr'"),
    ],
)
def test_invalid_options_are_refused(
    broker: Broker, settings: Settings, options: dict[str, Any], message: str
) -> None:
    """With the name of the setting."""
    configure(settings, **options)

    with pytest.raises(InvalidSettings, match=message):
        echo.Command().delay()


def test_a_run_of_a_removed_backend_is_reported(broker: Broker, settings: Settings) -> None:
    """`reconcile` cannot send it, and says so."""
    operation = echo.Command().delay()
    make_old(operation.run)
    settings.CLOUDRUN_JOBS = {**settings.CLOUDRUN_JOBS, "BACKENDS": {}, "ROUTES": {}}

    assert reconcile_all() == {"unknown": 1}
    with pytest.raises(InvalidSettings, match="no backend 'celery'"):
        _ = operation.run.operation


def test_a_moved_job_keeps_its_runs(broker: Broker, settings: Settings) -> None:
    """A run stays on the backend that it was sent to."""
    operation = echo.Command().delay()
    settings.CLOUDRUN_JOBS = {**settings.CLOUDRUN_JOBS, "ROUTES": {}}

    deliver_all(broker)

    assert operation.run.operation.result() == operation.result()


def test_the_list_of_runs_says_which_backend(broker: Broker) -> None:
    """Runs of all backends are one list."""
    operation = echo.Command().delay()
    outcome.Command()

    out = StringIO()
    call_command("cloudrun_jobs", "runs", stdout=out)
    assert "celery" in out.getvalue()
    out = StringIO()
    call_command("cloudrun_jobs", "show", operation.run_id, stdout=out)
    assert "celery, queue ingest" in out.getvalue()


def test_the_trigger_is_recorded(broker: Broker) -> None:
    """A reservation is one of `reserve()`."""
    assert echo.Command().reserve(timedelta(hours=5)).run.trigger == Trigger.RESERVE


def test_runs_share_a_connection(broker: Broker) -> None:
    """However long earlier requests have taken, the process sends the next one on the same connection."""
    echo.Command().delay()
    before = broker.client.info("clients")["connected_clients"]  # type: ignore[index]

    for _ in range(3):
        echo.Command().delay()

    assert broker.client.info("clients")["connected_clients"] == before  # type: ignore[index]
