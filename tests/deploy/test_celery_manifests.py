"""The manifests of Celery workers: filled in as `envsubst` does, and read by the real gcloud."""

from __future__ import annotations

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from string import Template
from threading import Thread
from typing import Any

import pytest
import yaml

from tests.emulator.gcloud_cli import NEEDS_GCLOUD, PROJECT, REGION, Gcloud

MANIFESTS = Path(__file__).parents[2] / "docker/celery"
VALUES = {
    "CONNECTOR": "main",
    "ENVIRONMENT": "production",
    "IMAGE": "europe-west4-docker.pkg.dev/acme/web/web:1",
    "INSTANCES": "2",
    "NETWORK": "default",
    "PROJECT_ID": PROJECT,
    "REGION": REGION,
    "SERVICE_ACCOUNT": "worker@acme.iam.gserviceaccount.com",
    "SUBNETWORK": "workers",
}
COMMANDS = {
    "worker-pool.yaml": ("beta", "run", "worker-pools", "replace"),
    "worker-service.yaml": ("run", "services", "replace"),
}
WORKER = [
    *("celery", "-A", "example.celery_app", "worker", "--loglevel=info"),
    "--queues=ingest,ai_analysis,backtest,market_data,notifications",
    *("--concurrency=4", "--prefetch-multiplier=1"),
]
SECRETS = {
    "REDIS_URL": "redis-url",
    "CELERY_BROKER_URL": "celery-broker-url",
    "CELERY_RESULT_BACKEND": "celery-result-backend",
}


def filled(name: str) -> str:
    """Return the manifest with its placeholders filled in. Raises KeyError for one without a value."""
    return Template((MANIFESTS / name).read_text()).substitute(VALUES)


def container_of(manifest: dict[str, Any]) -> dict[str, Any]:
    [container] = manifest["spec"]["template"]["spec"]["containers"]
    return container


@pytest.mark.parametrize("name", COMMANDS)
def test_worker_and_its_secrets(name: str) -> None:
    """Both manifests start the same worker, which stops softly and reads its secrets by reference."""
    container = container_of(yaml.safe_load(filled(name)))
    variables = {variable["name"]: variable for variable in container["env"]}

    assert container["args"][: len(WORKER)] == WORKER
    assert container["resources"] == {"limits": {"cpu": "2", "memory": "4Gi"}}
    assert {variable: variables[variable]["valueFrom"]["secretKeyRef"]["name"] for variable in SECRETS} == SECRETS
    assert variables["REMAP_SIGTERM"]["value"] == "SIGQUIT"
    assert variables["CELERY_WORKER_SOFT_SHUTDOWN_TIMEOUT"]["value"] == "2"


class Recorder(BaseHTTPRequestHandler):
    """Stands in for Cloud Run: nothing exists, and nothing can be created."""

    requests: list[tuple[str, str, Any]]

    def answer(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"] or 0))
        self.requests.append((self.command, self.path, json.loads(body or "null")))
        status = 404 if self.command == "GET" else 400
        answer = json.dumps({"error": {"code": status, "message": "stand-in"}}).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    do_GET = do_POST = answer  # noqa: N815  (the names of the base class)

    def log_message(self, *args: Any) -> None:
        """Log nothing."""


@pytest.fixture
def requests() -> list[tuple[str, str, Any]]:
    """The method, URL and body of each request that gcloud sent."""
    return []


@pytest.fixture
def gcloud(requests: list[tuple[str, str, Any]], tmp_path: Path) -> Iterator[Gcloud]:
    handler = type("Handler", (Recorder,), {"requests": requests})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, args=(0.01,)).start()
        yield Gcloud(f"127.0.0.1:{server.server_port}", tmp_path / "gcloud")
        server.shutdown()


@NEEDS_GCLOUD
@pytest.mark.parametrize(("name", "command"), COMMANDS.items())
def test_gcloud_sends_the_manifest(
    name: str, command: tuple[str, ...], gcloud: Gcloud, requests: list[Any], tmp_path: Path
) -> None:
    """gcloud reads every field, finds nothing of that name, and sends all of it."""
    (tmp_path / name).write_text(filled(name))
    gcloud(*command, str(tmp_path / name), succeeds=False)
    method, url, body = requests[-1]

    expected = yaml.safe_load(filled(name))
    assert (method, url.startswith(f"http://{REGION}-run.googleapis.com/")) == ("POST", True)
    assert body["kind"] == expected["kind"]
    assert body["metadata"]["annotations"].items() >= expected["metadata"]["annotations"].items()
    assert body["spec"]["template"]["spec"] == expected["spec"]["template"]["spec"]


@NEEDS_GCLOUD
@pytest.mark.parametrize(("name", "command"), COMMANDS.items())
def test_gcloud_refuses_an_unknown_field(
    name: str, command: tuple[str, ...], gcloud: Gcloud, requests: list[Any], tmp_path: Path
) -> None:
    """A mistake in a manifest is found before the first request."""
    (tmp_path / name).write_text(filled(name).replace("          args:", "          arguments:"))
    message = gcloud(*command, str(tmp_path / name), succeeds=False)

    assert ("containers[0].arguments" in message, requests) == (True, [])
