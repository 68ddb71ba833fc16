"""Cloud Scheduler: validation, schedules, deliveries, retries, pause and resume."""

from __future__ import annotations

import contextlib
import itertools
import threading
import time
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
import requests
from google.api_core import exceptions
from google.auth import jwt
from google.cloud import scheduler_v1
from google.protobuf import field_mask_pb2

from cloudrun_jobs.emulator import Emulator
from cloudrun_jobs.emulator.service import Service
from cloudrun_jobs.emulator.web import Response
from tests.emulator.cloud import PLACE, eventually, script

State = scheduler_v1.Job.State
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
ACCOUNT = "app-jobs@acme.iam.gserviceaccount.com"
HOOK = "https://hooks.example.com/tick"
RUN = f"https://run.googleapis.com/v2/{PLACE}/jobs/work:run"


class Hook:
    """A delivery handler that returns the given statuses and records the requests."""

    def __init__(self, *statuses):
        self.statuses = list(statuses)
        self.requests = []

    def __call__(self, request):
        self.requests.append(request)
        return Response(status=self.statuses.pop(0) if self.statuses else 200)


@pytest.fixture
def scheduler(emulator):
    emulator.clock.freeze(NOON)
    return emulator.clients.scheduler


@pytest.fixture
def hook(emulator):
    hook = Hook()
    emulator.on_delivery(HOOK, hook)
    return hook


def declare(scheduler, job_id="tick", uri=HOOK, schedule="0 * * * *", **fields):
    target = {"uri": uri, "headers": fields.pop("headers", {}), "body": fields.pop("body", b"")}
    target |= {name: fields.pop(name) for name in ("oauth_token", "oidc_token") if name in fields}
    job = scheduler_v1.Job(name=f"{PLACE}/jobs/{job_id}", schedule=schedule, http_target=target, **fields)
    return scheduler.create_job(parent=PLACE, job=job)


def executions(cloud):
    return list(cloud.emulator.clients.executions.list_executions(parent=f"{PLACE}/jobs/work"))


def test_month_of_ticks_is_delivered(emulator, scheduler, hook):
    """On a frozen clock, a month of hourly ticks is delivered at once, each with its own schedule time."""
    declare(scheduler)
    emulator.clock.advance(timedelta(days=31))

    when = [request.headers["x-cloudscheduler-scheduletime"] for request in hook.requests]
    assert len(when) == len(set(when)) == 31 * 24
    assert when[0] == "2026-03-01T13:00:00Z"


def test_delivery_headers(emulator, scheduler, hook):
    """A delivery has Cloud Scheduler's headers and the target's own."""
    declare(scheduler, headers={"X-Own": "1", "User-Agent": "mine"}, body=b"{}")
    emulator.clock.advance(timedelta(hours=1))

    [request] = hook.requests
    assert request.method == "POST"
    assert request.get_data() == b"{}"
    assert request.headers["user-agent"] == "Google-Cloud-Scheduler"
    assert request.headers["x-cloudscheduler"] == "true"
    assert request.headers["x-cloudscheduler-jobname"] == "tick"
    assert request.headers["content-type"] == "application/octet-stream"
    assert request.headers["x-own"] == "1"


def test_english_like_schedule_has_no_schedule_time(emulator, scheduler, hook):
    """An English-like schedule is delivered on time, without a schedule time in the headers."""
    declare(scheduler, schedule="every 30 minutes")
    emulator.clock.advance(timedelta(hours=1))

    assert len(hook.requests) == 2
    assert "x-cloudscheduler-scheduletime" not in hook.requests[0].headers


def test_scheduler_job_defaults_are_set(scheduler):
    """Unset fields get defaults; a new job is enabled and has a next schedule time."""
    job = declare(scheduler)

    assert job.state == State.ENABLED
    assert job.time_zone == "Etc/UTC"
    assert job.attempt_deadline == timedelta(minutes=3)
    assert job.schedule_time == NOON + timedelta(hours=1)
    assert job.retry_config.min_backoff_duration == timedelta(seconds=5)
    assert job.retry_config.max_backoff_duration == timedelta(hours=1)
    assert job.retry_config.max_doublings == 5


def test_schedule_follows_time_zone(scheduler):
    """A schedule follows the wall-clock time of its time zone."""
    job = declare(scheduler, schedule="0 9 * * *", time_zone="Asia/Tokyo")

    assert job.schedule_time == datetime(2026, 3, 2, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(("schedule", "zone"), [("", "utc"), ("* * * * * *", ""), ("0 9 * * *", "Mars/Olympus")])
def test_invalid_schedule_is_rejected(scheduler, schedule, zone):
    """An invalid schedule or time zone is rejected with the service's message."""
    with pytest.raises(exceptions.InvalidArgument) as raised:
        declare(scheduler, schedule=schedule, time_zone=zone)

    assert raised.value.message == "Schedule or time zone is invalid."


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"attempt_deadline": timedelta(seconds=14)}, "attempt_deadline"),
        ({"retry_config": {"retry_count": 6}}, "retry_count"),
        ({"description": "x" * 501}, "description"),
        ({"job_id": "a.b"}, "Job name"),
        ({"uri": "ftp://example.com"}, "uri"),
        ({"uri": "https://example.com/" + "x" * 2083}, "uri"),
        ({"headers": {"X": "x" * 82_000}}, "headers"),
        ({"headers": {"X": "a\r\nb"}}, "headers"),
        ({"headers": {"X Y": "a"}}, "headers"),
        ({"uri": "http://127.0.0.1\n:1/"}, "uri"),
    ],
)
def test_job_beyond_a_limit_is_rejected(scheduler, fields, message):
    """A job beyond a limit is rejected; the message names the field."""
    with pytest.raises(exceptions.InvalidArgument, match=message):
        declare(scheduler, **fields)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ({"pubsub_target": {"topic_name": "projects/acme/topics/t"}}, "Job.pubsub_target .* has no Pub/Sub"),
        ({"app_engine_http_target": {"relative_uri": "/"}}, "Job.app_engine_http_target .* has no App Engine"),
    ],
)
def test_targets_without_http_are_refused(scheduler, target, message):
    """A target other than HTTP is refused, at creation and by an update."""
    name = declare(scheduler).name
    job = scheduler_v1.Job(name=name, schedule="0 * * * *", **target)

    with pytest.raises(exceptions.MethodNotImplemented, match=message):
        scheduler.update_job(job=job)
    job.name = f"{PLACE}/jobs/other"
    with pytest.raises(exceptions.MethodNotImplemented, match=message):
        scheduler.create_job(parent=PLACE, job=job)


def test_paused_job_is_not_delivered(emulator, scheduler, hook):
    """A paused job is not delivered; when resumed, it continues with the next tick."""
    job = declare(scheduler)
    scheduler.pause_job(name=job.name)
    emulator.clock.advance(timedelta(hours=5))

    assert hook.requests == []

    resumed = scheduler.resume_job(name=job.name)
    emulator.clock.advance(timedelta(hours=1))

    assert resumed.schedule_time == NOON + timedelta(hours=6)
    assert len(hook.requests) == 1


def test_pause_and_resume_need_the_other_state(scheduler):
    """Only an enabled job can be paused, and only a paused one resumed."""
    name = declare(scheduler).name

    with pytest.raises(exceptions.FailedPrecondition):
        scheduler.resume_job(name=name)

    scheduler.pause_job(name=name)

    with pytest.raises(exceptions.FailedPrecondition):
        scheduler.pause_job(name=name)


def test_paused_job_can_be_run_now(scheduler, hook):
    """A job can be run now, even if it is paused and the clock is frozen."""
    name = declare(scheduler).name
    scheduler.pause_job(name=name)
    scheduler.run_job(name=name)

    [request] = eventually(lambda: list(hook.requests))
    assert request.headers["x-cloudscheduler-scheduletime"] == "2026-03-01T13:00:00Z"


def test_update_mask_limits_the_update(scheduler):
    """An update changes only the fields that its mask names."""
    job = declare(scheduler, description="keep", headers={"X-Own": "1"})
    new = scheduler_v1.Job(name=job.name, schedule="30 * * * *", description="drop", http_target={"uri": RUN})
    mask = field_mask_pb2.FieldMask(paths=["schedule"])
    updated = scheduler.update_job(scheduler_v1.UpdateJobRequest(job=new, update_mask=mask))

    assert (updated.schedule, updated.description, updated.http_target.uri) == ("30 * * * *", "keep", HOOK)
    assert updated.schedule_time == NOON + timedelta(minutes=30)


def test_update_mask_replaces_headers(scheduler):
    """Headers named in the mask replace the existing headers."""
    job = declare(scheduler, headers={"X-Old": "1"})
    new = scheduler_v1.Job(name=job.name, http_target={"headers": {"X-New": "2"}})
    mask = field_mask_pb2.FieldMask(paths=["http_target.headers"])
    updated = scheduler.update_job(scheduler_v1.UpdateJobRequest(job=new, update_mask=mask))

    assert dict(updated.http_target.headers) == {"X-New": "2"}
    assert updated.http_target.uri == HOOK


def test_unknown_update_mask_is_rejected(scheduler):
    """A mask with an unknown field is rejected."""
    job = declare(scheduler)
    mask = field_mask_pb2.FieldMask(paths=["nonsense"])

    with pytest.raises(exceptions.InvalidArgument, match="Invalid mask for Job: "):
        scheduler.update_job(scheduler_v1.UpdateJobRequest(job=job, update_mask=mask))


def test_update_keeps_a_pause(scheduler):
    """An update does not resume a paused job."""
    job = declare(scheduler)
    scheduler.pause_job(name=job.name)

    assert scheduler.update_job(job=job).state == State.PAUSED


def test_deleted_job_is_not_delivered(emulator, scheduler, hook):
    """A deleted job is not found and not delivered."""
    job = declare(scheduler)
    scheduler.delete_job(name=job.name)
    emulator.clock.advance(timedelta(hours=2))

    assert hook.requests == []
    with pytest.raises(exceptions.NotFound):
        scheduler.get_job(name=job.name)


def test_job_id_is_unique(scheduler):
    """A job id can be used once."""
    declare(scheduler)

    with pytest.raises(exceptions.AlreadyExists):
        declare(scheduler)


def test_jobs_are_listed_by_name(scheduler):
    """Jobs are listed by name, page by page."""
    for job_id in ("b", "a", "c"):
        declare(scheduler, job_id)
    listed = scheduler.list_jobs(scheduler_v1.ListJobsRequest(parent=PLACE, page_size=2))

    assert [job.name.rpartition("/")[2] for job in listed] == ["a", "b", "c"]


def test_no_retry_by_default(emulator, scheduler, hook):
    """Without a retry count, a failed delivery is not retried, and the job stores its status."""
    hook.statuses = [503]
    job = declare(scheduler)
    emulator.clock.advance(timedelta(minutes=90))

    assert len(hook.requests) == 1
    stored = scheduler.get_job(name=job.name)
    assert stored.status.code == 14
    assert stored.last_attempt_time == NOON + timedelta(hours=1)


def test_retries_back_off(emulator, scheduler, hook):
    """A failed delivery is retried after 10, 20, 40 … seconds, with the same schedule time."""
    hook.statuses = [500] * 6
    seen = []
    emulator.on_delivery(HOOK, lambda request: seen.append(emulator.clock.now()) or hook(request))
    config = {"retry_count": 5, "min_backoff_duration": timedelta(seconds=10), "max_doublings": 2,
              "max_backoff_duration": timedelta(seconds=100)}  # fmt: skip
    declare(scheduler, retry_config=config)
    emulator.clock.advance(timedelta(minutes=119))

    waits = [(later - earlier).total_seconds() for earlier, later in itertools.pairwise(seen)]
    assert waits == [10, 20, 40, 80, 100]
    assert len({request.headers["x-cloudscheduler-scheduletime"] for request in hook.requests}) == 1


def test_double_delivery_repeats_a_tick(emulator, scheduler, hook):
    """`double_delivery` delivers the same tick twice."""
    emulator.faults.double_delivery()
    declare(scheduler)
    emulator.clock.advance(timedelta(hours=2))

    when = [request.headers["x-cloudscheduler-scheduletime"][11:16] for request in hook.requests]
    assert when == ["13:00", "13:00", "14:00"]


def test_lost_response_is_retried(emulator, scheduler, hook):
    """A lost response counts as a failure, and the delivery is retried."""
    emulator.faults.lose_response()
    declare(scheduler, retry_config={"retry_count": 1})
    emulator.clock.advance(timedelta(hours=1, seconds=10))

    assert len(hook.requests) == 2


def test_delivery_starts_cloud_run_job(cloud, scheduler):
    """A delivery to the Cloud Run API starts a job, with the overrides in the body."""
    cloud.create(script('echo "$0"'))
    body = b'{"overrides": {"containerOverrides": [{"args": ["from-scheduler"]}]}}'
    job = declare(scheduler, uri=RUN, body=body, oauth_token={"service_account_email": ACCOUNT})
    cloud.emulator.clock.advance(timedelta(hours=1))

    [execution] = executions(cloud)
    assert cloud.outcome(execution.name).succeeded_count == 1
    assert cloud.output() == ["from-scheduler"]
    assert execution.creator == ACCOUNT
    assert scheduler.get_job(name=job.name).status.code == 0


def test_cloud_run_needs_a_token(cloud, scheduler):
    """Cloud Run rejects a delivery without an OAuth token."""
    cloud.create(script("exit 0"))
    job = declare(scheduler, uri=RUN)
    cloud.emulator.clock.advance(timedelta(hours=1))

    assert executions(cloud) == []
    assert scheduler.get_job(name=job.name).status.code == 16


def test_missing_cloud_run_job_sets_not_found(emulator, scheduler):
    """A delivery to a missing job sets the status to NOT_FOUND."""
    job = declare(scheduler, uri=RUN, oauth_token={"service_account_email": ACCOUNT})
    emulator.clock.advance(timedelta(hours=1))

    assert scheduler.get_job(name=job.name).status.code == 5


def test_other_hosts_are_not_called(emulator, scheduler):
    """The emulator delivers only to this machine: other hosts are rejected, and the reason is logged."""
    job = declare(scheduler, uri="https://example.com/")
    emulator.clock.advance(timedelta(hours=1))

    assert scheduler.get_job(name=job.name).status.code == 7
    finished = emulator.logs.all()[-1]
    assert "not to example.com" in finished.json_payload["debugInfo"]


def test_local_target_gets_an_oidc_token(emulator, scheduler):
    """A target on this machine gets an OIDC token that verifies with the published key."""
    with local_server() as (uri, received):
        declare(
            scheduler,
            uri=f"{uri}/a hook?x=\u3042\r\n",
            oidc_token={"service_account_email": ACCOUNT, "audience": "me"},
        )
        emulator.clock.advance(timedelta(hours=1))
        [(path, headers)] = received

    assert path == "/a%20hook?x=%E3%81%82%0D%0A"
    certificates = requests.get(f"{emulator.http}/oauth2/v1/certs", timeout=10).json()
    claims = jwt.decode(headers["Authorization"].removeprefix("Bearer "), certs=certificates, audience="me")
    assert (claims["email"], claims["email_verified"]) == (ACCOUNT, True)
    assert claims["iss"] == emulator.http


def test_attempt_deadline_fails_the_attempt(emulator, scheduler):
    """An attempt that exceeds its deadline fails with DEADLINE_EXCEEDED."""
    emulator.clock.scale(60)
    with local_server(silent=True) as (uri, _):
        job = declare(scheduler, uri=uri, attempt_deadline=timedelta(seconds=15))
        scheduler.run_job(name=job.name)

        assert eventually(lambda: scheduler.get_job(name=job.name).status.code) == 4


def test_stop_aborts_a_delivery():
    """Stopping does not wait for a target that does not respond; the attempt is unfinished, to be made again."""
    with local_server(silent=True) as (uri, received):
        with Emulator() as emulator:
            name = declare(emulator.clients.scheduler, uri=uri).name
            emulator.clients.scheduler.run_job(name=name)
            eventually(lambda: list(received))
            stopping = time.monotonic()

        assert time.monotonic() - stopping < 10
    assert len(emulator.scheduler.entries[name].deliveries) == 1


def test_failing_handler_is_logged(emulator, scheduler, caplog):
    """An exception in a delivery handler, which runs in another thread, is logged."""
    emulator.on_delivery(HOOK, lambda _: 1 // 0)
    scheduler.run_job(name=declare(scheduler).name)

    eventually(lambda: "ZeroDivisionError" in caplog.text)

    assert "integer" in caplog.text


def test_bug_in_a_delivery_to_cloud_run_is_a_response(emulator, scheduler, caplog, monkeypatch):
    """A bug of the emulator fails the attempt with INTERNAL and is logged; the next tick is delivered."""
    name = declare(scheduler, uri=RUN, oauth_token={"service_account_email": ACCOUNT}).name
    with monkeypatch.context() as broken:
        broken.setattr(Service, "call", lambda *_: 1 // 0)
        emulator.clock.advance(timedelta(hours=2))

    job = scheduler.get_job(name=name)
    assert (job.status.code, job.last_attempt_time) == (13, NOON + timedelta(hours=2))
    assert "ZeroDivisionError" in caplog.text


def test_delivery_attempts_are_logged(emulator, scheduler, hook):
    """Each attempt is logged at its start and its end."""
    declare(scheduler)
    emulator.clock.advance(timedelta(hours=1))

    started, finished = emulator.logs.all()
    assert started.resource.type == finished.resource.type == "cloud_scheduler_job"
    assert started.json_payload["@type"].endswith(".AttemptStarted")
    assert finished.json_payload["debugInfo"] == "URL_CRAWLED. Original HTTP response code number = 200"


@contextlib.contextmanager
def local_server(*, silent=False):
    """Run a server on this machine that records requests, and responds unless it is silent."""
    received, stopped = [], threading.Event()

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self):
            received.append((self.path, dict(self.headers)))
            if silent:
                stopped.wait(30)
            self.send_response(204)
            self.end_headers()

        def log_message(self, *args):
            pass

    with HTTPServer(("127.0.0.1", 0), Receiver) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", received
        finally:
            stopped.set()
            server.shutdown()
            thread.join()
