"""`POST run/<command>/` of a job on a queue sends one run per tick, and the response does not wait for it."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.test import Client

from cloudrun_jobs.exceptions import AccessDenied, ServiceUnavailable
from cloudrun_jobs.models import JobRun, Status, Trigger
from cloudrun_jobs.runs import dispatch
from cloudrun_jobs.spec import Schedule
from tests.contrib.recording import ON_QUEUE, RecordingQueue
from tests.http_api.test_oidc import EMAIL, server, tokens
from tests.http_api.test_triggers import deliver, minutes_ago, service

__all__ = ["deliver", "server", "service", "tokens"]

pytestmark = pytest.mark.django_db(transaction=True)

DECLARED = {"args": ["echo", "--partner=8"], "schedule": "echo-production-1|* * * * *|UTC"}


@pytest.fixture(autouse=True)
def queue(http: Client, deliver: Any, settings: Any, monkeypatch: pytest.MonkeyPatch) -> type[RecordingQueue]:
    """Run the job `echo` on a queue."""
    settings.CLOUDRUN_JOBS = {**settings.CLOUDRUN_JOBS, **ON_QUEUE}
    monkeypatch.setattr(RecordingQueue, "sent", [])
    return RecordingQueue


def test_run_is_sent(call: Any, queue: type[RecordingQueue]) -> None:
    """The response has the run's id and its URL; each request is a run."""
    first, second = (call("POST", "run/echo/", data=json.dumps({"partner": 7})) for _ in range(2))
    run = JobRun.objects.order_by("created_at").first()

    assert (first.status_code, first.json()) == (202, {"status": "queued", "job_id": str(run.pk)})
    assert first["Location"] == f"/cloudrun_jobs/jobs/{run.pk}/"
    assert (run.argv, run.trigger, run.requested_by) == (["echo", "--partner=7"], Trigger.HTTP, "token all")
    assert (run.status, run.backend, run.queue) == (Status.SENT, "celery", "ingest")
    assert [request.run_id for request in queue.sent] == [first.json()["job_id"], second.json()["job_id"]]


def test_one_run_of_each_tick(deliver: Any, queue: type[RecordingQueue], service: Any) -> None:
    """A repeated delivery gets the same run, whatever its status."""
    service(schedule=[Schedule("* * * * *", args={"partner": 8})], http_options=())
    due, body = minutes_ago(2), json.dumps(DECLARED).encode()
    first, again, later = deliver(due, body), deliver(due, body), deliver(due + timedelta(minutes=1), body)
    run = JobRun.objects.get(pk=first.json()["job_id"])
    JobRun.objects.filter(pk=run.pk).update(status=Status.FAILED, reason="exit_code")
    last = deliver(due, body)

    assert again.json() == last.json() == {"status": "queued", "job_id": str(run.pk), "duplicate": True}
    assert [each.status_code for each in (first, again, later, last)] == [202] * 4
    assert (run.trigger, run.schedule, run.scheduled_for) == (Trigger.SCHEDULE, "echo-test", due)
    assert (run.requested_by, run.argv) == (EMAIL, ["echo", "--partner=8"])
    assert [request.run_id for request in queue.sent] == [str(run.pk), later.json()["job_id"]]


def test_manual_start_does_not_use_up_the_next_tick(deliver: Any) -> None:
    """A run started by hand has the time of the next tick."""
    due = minutes_ago(1)
    by_hand = deliver(due).json()
    JobRun.objects.update(created_at=due - timedelta(minutes=10))
    first, second = deliver(due).json(), deliver(due).json()

    assert first["job_id"] not in {by_hand["job_id"], None}
    assert second == {**first, "duplicate": True}


def test_early_start_by_hand_is_repeated_as_a_duplicate(deliver: Any) -> None:
    """Until the next tick is due, a second start by hand is a duplicate."""
    due = datetime.now(UTC) + timedelta(minutes=5)

    assert [deliver(due).json().get("duplicate") for _ in range(2)] == [None, True]


@pytest.fixture
def fail(queue: type[RecordingQueue], monkeypatch: pytest.MonkeyPatch) -> Callable[[Exception | None], None]:
    """Let the queue reject what is sent, without retries."""
    monkeypatch.setattr(dispatch, "retry_with_backoff", lambda step, seconds: step(seconds))
    return lambda error: monkeypatch.setattr(queue, "error", error)


def test_unavailable_broker_delays_the_run(deliver: Any, fail: Any) -> None:
    """The run is recorded, and `reconcile` sends it: Cloud Scheduler need not retry."""
    fail(ServiceUnavailable("The broker is unavailable."))
    response = deliver(minutes_ago(1))

    assert (response.status_code, JobRun.objects.get().status) == (202, Status.PENDING)


def test_refused_run_is_sent_by_the_next_delivery(deliver: Any, queue: type[RecordingQueue], fail: Any) -> None:
    """The response is an error, and Cloud Scheduler's retry sends the same run."""
    fail(AccessDenied("The password is wrong."))
    due = minutes_ago(1)
    first = deliver(due)
    failed = JobRun.objects.get()
    fail(None)
    second = deliver(due)

    assert (first.status_code, first.json()["error"]["code"], failed.reason) == (502, "service_error", "not_sent")
    assert (second.status_code, second.json()) == (202, {"status": "queued", "job_id": str(failed.pk)})
    assert [request.run_id for request in queue.sent] == [str(failed.pk)]


def test_test_mode_reaches_the_worker(call: Any, queue: type[RecordingQueue], service: Any) -> None:
    """It is an environment variable of the run."""
    service(test_mode=False)
    call("POST", "run/echo/", data=json.dumps({"test_mode": True}))

    assert queue.sent[0].overrides.env == {"CLOUDRUN_JOBS_TEST_MODE": "1"}


def test_job_may_take_longer_than_a_request(call: Any, service: Any) -> None:
    """No request waits for it, so Cloud Scheduler's limit is not that of its timeout."""
    service(timeout=7200, schedule="* * * * *")
    response = call("POST", "run/echo/")

    assert response.status_code == 202
