"""The emulator's Cloud Scheduler calls jobs with `target = "service"` in gunicorn and uvicorn."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest
from django.db import connection
from google.cloud import scheduler_v1

from cloudrun_jobs.emulator import Emulator
from cloudrun_jobs.models import JobRun, Status
from tests.http_api import live
from tests.servers.process import free_port
from tests.waiting import wait_for

PLACE = "projects/acme/locations/asia-northeast1"
AUDIENCE = "https://web-abc.a.run.app"
EMAIL = "scheduler@acme.iam.gserviceaccount.com"
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)

pytestmark = pytest.mark.django_db(transaction=True)


class Service:
    """A web server process that accepts the emulator's ID tokens, and the Scheduler job that calls it."""

    def __init__(self, name: str, emulator: Emulator, directory: Path) -> None:
        self.emulator, self.port = emulator, free_port()
        self.journal, self.hold = directory / "journal", directory / "hold"
        oidc = {
            "audience": AUDIENCE,
            "emails": [EMAIL],
            "issuer": emulator.http,
            "certs_url": f"{emulator.http}/oauth2/v1/certs",
        }
        database = {"ENGINE": "django.db.backends.sqlite3", "NAME": str(connection.settings_dict["NAME"])}
        database["OPTIONS"] = {"transaction_mode": "IMMEDIATE", "timeout": 20}  # type: ignore[assignment]
        variables = {"IN_REQUEST_DIRECTORY": str(directory), "CLOUDRUN_JOBS_HTTP": json.dumps({"OIDC": oidc})}
        self.process = live.start(name, self.port, database, grace=20, **variables)
        wait_for(lambda: live.listens(self.port, self.process))

    @property
    def started(self) -> int:
        """How often the job has begun."""
        return self.journal.read_text().count("started") if self.journal.exists() else 0

    def declare(self, *, email: str = EMAIL, audience: str = AUDIENCE, retries: int = 0) -> None:
        """Create the Scheduler job, with the token of this account."""
        target: dict[str, Any] = {
            "uri": f"http://127.0.0.1:{self.port}/cloudrun_jobs/run/in_request/",
        }
        if email:
            target["oidc_token"] = {"service_account_email": email, "audience": audience}
        config = {"retry_count": retries, "min_backoff_duration": timedelta(seconds=5)}
        job = scheduler_v1.Job(
            name=f"{PLACE}/jobs/in-request", schedule="0 * * * *", http_target=target, retry_config=config
        )
        self.emulator.clients.scheduler.create_job(parent=PLACE, job=job)

    def tick(self) -> int:
        """Let the next tick become due; return the code of the delivery's status."""
        self.emulator.clock.advance(timedelta(hours=1))
        return self.code

    def run(self) -> None:
        """Deliver the job now, without waiting for the response."""
        self.emulator.clients.scheduler.run_job(name=f"{PLACE}/jobs/in-request")

    @property
    def code(self) -> int:
        job = self.emulator.clients.scheduler.get_job(name=f"{PLACE}/jobs/in-request")
        return int(job.status.code)


@pytest.fixture
def serve(cloudrun_emulator: Emulator, tmp_path: Path) -> Iterator[Callable[[str], Service]]:
    services: list[Service] = []

    def serve(name: str) -> Service:
        cloudrun_emulator.clock.freeze(NOON)
        services.append(Service(name, cloudrun_emulator, tmp_path))
        return services[0]

    yield serve
    for service in services:
        service.hold.unlink(missing_ok=True)
        service.process.kill()
        service.process.wait(30)


@pytest.fixture(params=live.SERVERS)
def service(request: pytest.FixtureRequest, serve: Callable[[str], Service]) -> Service:
    return serve(request.param)


def test_ticks_run_the_job_once_each(service: Service) -> None:
    """A tick delivered twice, and one whose response was lost, runs once; the next tick runs again."""
    service.declare(retries=3)

    service.emulator.faults.double_delivery()
    assert (service.tick(), service.started) == (0, 1)
    service.emulator.faults.lose_response()
    service.tick()
    service.emulator.clock.advance(timedelta(minutes=1))
    assert (service.code, service.started) == (0, 2)
    assert (service.tick(), service.started) == (0, 3)

    runs = JobRun.objects.filter(status=Status.SUCCEEDED, requested_by=EMAIL)
    due = [NOON + timedelta(hours=hour) for hour in (1, 2, 3)]
    assert list(runs.order_by("scheduled_for").values_list("scheduled_for", flat=True)) == due


@pytest.mark.parametrize(
    ("token", "code"),
    [
        ({"email": "other@acme.iam.gserviceaccount.com"}, 16),
        ({"audience": "https://other.a.run.app"}, 16),
        ({"email": ""}, 16),
    ],
    ids=["another account", "another service", "none"],
)
def test_other_tokens_run_nothing(serve: Callable[[str], Service], token: dict[str, str], code: int) -> None:
    """The delivery fails with UNAUTHENTICATED."""
    service = serve("gunicorn")
    service.declare(**token)

    assert (service.tick(), service.started, JobRun.objects.count()) == (code, 0, 0)


def test_sigterm_interrupts_the_job_and_the_server_answers(service: Service) -> None:
    """The run is recorded as interrupted, and Cloud Scheduler gets an error: it delivers the tick again."""
    service.hold.touch()
    service.declare()
    service.run()
    wait_for(lambda: service.started)

    service.process.send_signal(signal.SIGTERM)
    service.process.wait(30)

    run = JobRun.objects.get()
    assert (run.status, run.reason) == (Status.FAILED, "interrupted")
    assert wait_for(lambda: service.code) == 13


def test_job_goes_on_when_its_client_disconnects(service: Service) -> None:
    """Cloud Scheduler's connection may be lost, and the work must not be."""
    service.hold.touch()
    token = service.emulator.tokens.id_token(EMAIL, AUDIENCE, service.emulator.http)
    client = HTTPConnection("127.0.0.1", service.port, timeout=30)
    client.request("POST", "/cloudrun_jobs/run/in_request/", None, {"Authorization": f"Bearer {token}"})
    wait_for(lambda: service.started)
    client.close()
    service.hold.unlink()

    wait_for(lambda: JobRun.objects.filter(status=Status.SUCCEEDED).exists())


def test_second_delivery_while_the_job_runs(service: Service) -> None:
    """It fails, so that Cloud Scheduler delivers the tick again; the job does not run twice."""
    service.hold.touch()
    service.declare()
    service.run()
    wait_for(lambda: service.started)
    service.run()

    assert wait_for(lambda: service.code) == 14
    service.hold.unlink()
    wait_for(lambda: JobRun.objects.filter(status=Status.SUCCEEDED).exists())
    assert (service.started, JobRun.objects.count()) == (1, 1)
