"""An emulator with the example's image, and what docs/deploy.md creates before the first deployment."""

from __future__ import annotations

import os
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest
from google.cloud import run_v2

from cloudrun_jobs.emulator import Emulator
from tests.deploying.steps import REPOSITORY, ROOT, Machine
from tests.emulator.cloud import PLACE, Cloud, job
from tests.emulator.gcloud_cli import Gcloud

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

WEB = f"{PLACE}/services/web-production"
FIRST = f"{REPOSITORY}:first"


class HealthHandler(BaseHTTPRequestHandler):
    """Answers as the new revision does, and notes where the traffic was at that time."""

    web: Web

    def do_GET(self) -> None:
        self.web.requests.append((self.path, self.web.traffic()))
        self.send_response(self.web.status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *args: Any) -> None:
        """Log nothing."""


class Web:
    """A local server in place of the service's revisions."""

    def __init__(self) -> None:
        self.url = ""
        self.status = 200
        self.requests: list[tuple[str, list[str]]] = []
        self.emulator: Emulator | None = None

    def service(self) -> run_v2.Service:
        assert self.emulator is not None
        return self.emulator.services[WEB]

    def traffic(self) -> list[str]:
        """Return the images that get requests."""
        assert self.emulator is not None
        revisions = self.emulator.revisions
        targets = [target.revision for target in self.service().traffic_statuses if target.percent]
        return [revisions[f"{WEB}/revisions/{name}"].containers[0].image for name in targets]


@pytest.fixture
def web() -> Iterator[Web]:
    web = Web()
    handler = type("Handler", (HealthHandler,), {"web": web})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        web.url = f"http://127.0.0.1:{server.server_port}"
        yield web
        server.shutdown()
        thread.join()


@pytest.fixture
def emulator(web: Web) -> Iterator[Emulator]:
    images = {REPOSITORY: ROOT / "example_project"}
    pass_env = ("PYTHONPATH",)
    with Emulator(grace=1.0, images=images, services={"web-production": web.url}, pass_env=pass_env) as emulator:
        web.emulator = emulator
        yield emulator


@pytest.fixture
def cloud(emulator: Emulator, tmp_path: Path) -> Cloud:
    """The emulator with a service and the jobs `migrate` and `celery-ping`, all with the first image."""
    cloud = Cloud(emulator)
    variables = {
        "CLOUDRUN_JOBS_ENVIRONMENT": "production",
        "EXAMPLE_SECRET_KEY": "for this test",
        "EXAMPLE_DATABASE": str(tmp_path / "db.sqlite3"),
    }
    migrate = job(image=FIRST, env=variables)
    migrate.template.template.containers[0].args = ["migrate", "--noinput"]
    cloud.create(migrate, "migrate-production")
    cloud.create(job("/bin/sh", "-c", "echo pong", image=FIRST), "celery-ping-production")
    return cloud


@pytest.fixture
def machine(emulator: Emulator, cloud: Cloud, tmp_path: Path) -> Machine:
    """A machine of CI: gcloud reaches the emulator as its proxy, the image's commands over gRPC."""
    environment = {
        **Gcloud(emulator.http, tmp_path / "gcloud").environment(),
        "CLOUDRUN_EMULATOR_HOST": emulator.grpc,
        "PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "example_project"))),
    }
    del environment["CLOUDSDK_CORE_PROJECT"], environment["CLOUDSDK_RUN_REGION"]
    return Machine(tmp_path, environment)
