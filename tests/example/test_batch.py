"""The batch jobs: their Scheduler jobs, as the sync creates them, and requests by curl against gunicorn."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from shutil import copyfile
from typing import Any

import pytest

from cloudrun_jobs.emulator import Emulator
from cloudrun_jobs.emulator.web import Request, Response
from tests.example.test_ingest import PROJECT, serve

SERVICE_URL = "https://web-abc.a.run.app"
ACCOUNT = "scheduler@acme.iam.gserviceaccount.com"
PREFIX = "/cloudrun_jobs/run/"

Curl = Callable[..., tuple[int, Any]]


@pytest.fixture(scope="module")
def emulator() -> Iterator[Emulator]:
    with Emulator(directory=PROJECT) as emulator:
        emulator.clock.freeze(datetime(2026, 3, 1, 23, 55, tzinfo=UTC))  # Monday, 08:55 in Seoul.
        yield emulator


@pytest.fixture(scope="module")
def variables(migrated: Path, tmp_path_factory: pytest.TempPathFactory, emulator: Emulator) -> dict[str, str]:
    """The environment of the example in production."""
    database = tmp_path_factory.mktemp("batch") / "example.sqlite3"
    copyfile(migrated, database)
    oidc = {"audience": SERVICE_URL, "emails": [ACCOUNT], "scopes": ["read"], "issuer": emulator.http}
    oidc["certs_url"] = f"{emulator.http}/oauth2/v1/certs"
    options = {"endpoint": emulator.grpc, "service_url": SERVICE_URL, "scheduler_service_account": ACCOUNT}
    return {
        "DJANGO_SETTINGS_MODULE": "example.settings",
        "EXAMPLE_SECRET_KEY": "only for tests",
        "EXAMPLE_DATABASE": str(database),
        "EXAMPLE_SERVICE_URL": SERVICE_URL,
        "EXAMPLE_SCHEDULER_ACCOUNT": ACCOUNT,
        "EXAMPLE_ALLOWED_HOSTS": "127.0.0.1",
        "CLOUDRUN_JOBS_ENVIRONMENT": "production",
        "CLOUDRUN_JOBS_PROJECT": "acme",
        "CLOUDRUN_JOBS_REGION": "asia-northeast1",
        "CLOUDRUN_JOBS_OPTIONS": json.dumps(options),
        "CLOUDRUN_JOBS_HTTP": json.dumps({"OIDC": oidc}),
    }


@pytest.fixture(scope="module")
def url(variables: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with serve(tmp_path_factory.mktemp("log"), variables) as url:
        yield url


@pytest.fixture
def curl(url: str, emulator: Emulator) -> Curl:
    """Return a function that calls curl with the account's ID token, and returns the status and the data."""

    def curl(path: str, *options: str) -> tuple[int, Any]:
        token = emulator.tokens.id_token(ACCOUNT, SERVICE_URL, emulator.http)
        given = ["-w", "\n%{http_code}", "-H", f"Authorization: Bearer {token}", *options, f"{url}{path}"]
        command = ["curl", "-sS", "--max-time", "60", *given]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        body, _, status = done.stdout.rpartition("\n")
        return int(status), json.loads(body)

    return curl


def post(curl: Curl, name: str, body: Any = None) -> tuple[int, Any]:
    data = ["-d", json.dumps(body)] if body is not None else []
    return curl(f"{PREFIX}{name}/", "-X", "POST", *data)


@pytest.mark.parametrize(
    ("name", "body", "result"),
    [
        ("update_quotes", None, {"processed": 100, "errors": 0}),
        ("update_quotes", {}, {"processed": 100, "errors": 0}),
        ("update_quotes", {"test_mode": True}, {"processed": 5, "errors": 0}),
        ("clean_up_quotes", None, {"status": "done", "count": 42}),
        ("clean_up_quotes", {"dry_run": True}, {"status": "done", "count": 42}),
    ],
)
def test_batch_job_answers_with_its_result(curl: Curl, name: str, body: Any, result: Any) -> None:
    assert post(curl, name, body) == (200, {"status": "success", "result": result})


def test_failure_is_an_error_without_a_traceback(curl: Curl) -> None:
    status, answer = post(curl, "clean_up_quotes", {"keep": 101})

    assert (status, answer) == (500, {"status": "error", "error": "--keep: expected at most 100, got 101."})


def test_index_lists_the_batch_jobs(curl: Curl) -> None:
    """Each has its schedules, and whether it has a dry run."""
    _, answer = curl(PREFIX)

    listed = {each["command"]: (each["url"], each["dry_run"]) for each in answer["endpoints"]}
    assert listed == {
        "clean_up_quotes": (f"{PREFIX}clean_up_quotes/", True),
        "update_quotes": (f"{PREFIX}update_quotes/", False),
    }


def test_scheduler_calls_what_the_sync_registers(variables: dict[str, str], url: str, emulator: Emulator) -> None:
    """From the declaration to the response: sync, tick, request, run."""
    command = [sys.executable, str(PROJECT / "manage.py"), "sync_cloudrun_schedules", "--command"]
    for name in ("update_quotes", "clean_up_quotes"):
        subprocess.run([*command, name], env={**os.environ, **variables}, capture_output=True, check=True)
        # The emulator delivers to this machine only.
        emulator.on_delivery(f"{SERVICE_URL}{PREFIX}{name}/", lambda request: forward(url, request))

    emulator.clock.advance(timedelta(minutes=10))

    parent = "projects/acme/locations/asia-northeast1"
    jobs = {job.name.rpartition("/")[2]: job for job in emulator.clients.scheduler.list_jobs(parent=parent)}
    assert sorted(jobs) == ["clean-up-quotes-production", "update-quotes-production"]
    assert {job.status.code for job in jobs.values() if job.last_attempt_time} == {0}
    assert jobs["update-quotes-production"].attempt_deadline == timedelta(seconds=900)
    results = [answer["result"] for answer in sorted(answers, key=str)]
    assert results == [{"processed": 100, "errors": 0}, {"status": "done", "count": 42}]


answers: list[Any] = []


def forward(url: str, request: Request) -> Response:
    """Send a delivery to the server, and keep the response."""
    path = "/" + request.raw_path.lstrip("/")
    sent = urllib.request.Request(
        url + path, data=request.get_data(), headers=dict(request.headers), method="POST"
    )
    sent.remove_header("Host")
    try:
        with urllib.request.urlopen(sent, timeout=60) as response:
            answers.append(json.load(response))
            return Response(status=response.status)
    except urllib.error.HTTPError as error:
        answers.append(json.load(error))
        return Response(status=error.code)
