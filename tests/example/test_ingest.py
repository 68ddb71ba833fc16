"""The ingest API, by curl against gunicorn, whose runs are executions on the emulator."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from shutil import copyfile
from typing import Any
from uuid import UUID

import pytest
from google.cloud import run_v2

from cloudrun_jobs.emulator import Emulator
from tests.servers.process import free_port
from tests.waiting import wait_for

PROJECT = Path(__file__).resolve().parents[2] / "example_project"
PARENT = "projects/acme/locations/asia-northeast1"
TOKEN = "the token of n8n"
BODY = {"intervals": {"1m": 1}, "market": "TSE_PRIME", "chunk_size": 500}
RESULT = {"market": "TSE_PRIME", "requests": 4, "processed": 1640, "errors": 0}

Curl = Callable[..., tuple[int, Any]]


def create_job(emulator: Emulator, name: str, variables: dict[str, str]) -> None:
    """Create the Cloud Run Job, as a deployment does."""
    env = [run_v2.EnvVar(name=key, value=value) for key, value in variables.items()]
    container = run_v2.Container(image="example", command=[sys.executable, "manage.py"], env=env)
    task = run_v2.TaskTemplate(containers=[container], max_retries=0)
    job = run_v2.Job(template=run_v2.ExecutionTemplate(template=task))
    emulator.clients.jobs.create_job(parent=PARENT, job=job, job_id=name)


@pytest.fixture(scope="module")
def url(migrated: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Serve the example in production, with the emulator as the cloud; return the server's URL."""
    home = tmp_path_factory.mktemp("ingest")
    copyfile(migrated, home / "example.sqlite3")
    variables = {
        "DJANGO_SETTINGS_MODULE": "example.settings",
        "EXAMPLE_SECRET_KEY": "only for tests",
        "EXAMPLE_DATABASE": str(home / "example.sqlite3"),
        "CLOUDRUN_JOBS_ENVIRONMENT": "production",
    }
    with Emulator(directory=PROJECT) as emulator:
        for name in ("run-daily-ingest-production", "job-production"):
            create_job(emulator, name, variables)
        place = {"CLOUDRUN_JOBS_PROJECT": "acme", "CLOUDRUN_JOBS_REGION": "asia-northeast1"}
        endpoint = json.dumps({"endpoint": emulator.grpc})
        variables |= {**place, "CLOUDRUN_JOBS_OPTIONS": endpoint, "EXAMPLE_INGEST_TOKEN": TOKEN}
        with serve(home, {**variables, "EXAMPLE_ALLOWED_HOSTS": "127.0.0.1"}) as url:
            yield url


@contextmanager
def serve(home: Path, variables: dict[str, str]) -> Iterator[str]:
    """Run gunicorn as the image does while the block runs; yield its URL."""
    address = f"127.0.0.1:{free_port()}"
    options = ["--chdir", PROJECT, "--bind", address, "--threads", "8", "--no-control-socket"]
    command = [sys.executable, "-m", "gunicorn", *options, "example.wsgi:application"]
    with (
        (home / "log").open("wb") as log,
        subprocess.Popen(command, env={**os.environ, **variables}, stdout=log, stderr=log) as server,
    ):
        try:
            wait_for(lambda: answers(f"http://{address}/login/"))
            yield f"http://{address}"
        finally:
            server.terminate()


def answers(url: str) -> bool:
    try:
        urllib.request.urlopen(url, timeout=10).close()
    except OSError:
        return False
    return True


@pytest.fixture
def curl(url: str) -> Curl:
    """Return a function that calls curl, and returns the status and the data."""

    def curl(path: str, *options: str, token: str | None = TOKEN) -> tuple[int, Any]:
        header = ["-H", f"x-ingest-token: {token}"] if token else []
        command = ["curl", "-sS", "--max-time", "60", "-w", "\n%{http_code}", *header, *options, f"{url}{path}"]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        body, _, status = done.stdout.rpartition("\n")
        return int(status), json.loads(body)

    return curl


def start(curl: Curl, body: object) -> tuple[int, Any]:
    """Send the request of the report."""
    json_type = ("-H", "Content-Type: application/json")
    return curl("/api/v1/ingest/run-daily", "-X", "POST", *json_type, "-d", json.dumps(body))


def test_post_poll_and_read_the_result(curl: Curl) -> None:
    """As an n8n HTTP node does: start the job, poll until it has ended, read its result."""
    status, answer = start(curl, BODY)
    path = f"/api/v1/ingest/jobs/{answer['job_id']}"
    run = wait_for(lambda: ended(curl(f"{path}?wait=25")), 120)
    _, listed = curl("/api/v1/ingest/jobs")
    _, stats = curl("/api/v1/ingest/jobs/stats")

    assert (status, answer) == (202, {"job_id": str(UUID(answer["job_id"])), "status": "queued"})
    assert (run["status"], run["result"], run["requested_by"]) == ("succeeded", RESULT, "token ingest")
    assert run["execution"].startswith("run-daily-ingest-production-")
    assert answer["job_id"] in [each["id"] for each in listed["runs"]]
    assert stats["counts"]["succeeded"] >= 1


def ended(response: tuple[int, Any]) -> Any:
    status, run = response
    assert status == 200
    return run if run["finished_at"] else None


def test_job_by_id(curl: Curl) -> None:
    """A POST starts the job with the id of the URL; a GET shows the newest run with it."""
    missing = curl("/job/7")
    first = curl("/job/7", "-X", "POST")
    wait_for(lambda: ended(curl("/job/7")), 120)  # The second run would be skipped.
    second = curl("/job/7", "-X", "POST")
    other = curl("/job/77", "-X", "POST")
    run = wait_for(lambda: ended(curl("/job/7")), 120)

    assert (missing[0], missing[1]["error"]["code"]) == (404, "not_found")
    assert [status for status, _ in (first, second, other)] == [202] * 3
    assert (run["id"], run["argv"], run["result"]) == (second[1]["job_id"], ["job", "--id=7"], {"id": 7})


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize(
    "path",
    [
        "/job/7",
        "/api/v1/ingest/run-daily",
        "/api/v1/ingest/jobs",
        "/api/v1/ingest/jobs/x",
        "/api/v1/ingest/jobs/stats",
    ],
)
def test_api_is_closed(curl: Curl, path: str, method: str) -> None:
    """Every request without the token, or with another one, is rejected."""
    assert [curl(path, "-X", method, token=token)[0] for token in (None, "another")] == [401, 401]


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"intervals": "1m", "verbosity": 3}, 422, "invalid_options"),
        ({"market": "NYSE"}, 422, "invalid_options"),
        ({"chunk_size": "many"}, 422, "invalid_options"),
        ([], 400, "invalid_json"),
    ],
    ids=str,
)
def test_invalid_body_starts_nothing(curl: Curl, body: object, status: int, code: str) -> None:
    """The command's parser rejects it before a run is recorded."""
    _, before = curl("/api/v1/ingest/jobs")
    answer = start(curl, body)
    _, after = curl("/api/v1/ingest/jobs")

    assert (answer[0], answer[1]["error"]["code"]) == (status, code)
    assert len(before["runs"]) == len(after["runs"])
