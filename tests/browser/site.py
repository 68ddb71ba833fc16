"""The site that the browser opens: gunicorn, a database in a file, and jobs on the emulator of Cloud Run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cloudrun_jobs.emulator import Emulator
from tests.emulator.cloud import Cloud, job
from tests.http_api.live import listens
from tests.servers.process import free_port
from tests.waiting import wait_for

ROOT = Path(__file__).parents[2]


def variables(database: Path, emulator: Emulator | None = None, *, unfold: bool = False) -> dict[str, str]:
    """Return the environment of the site's processes."""
    found = {
        "PYTHONPATH": os.pathsep.join(map(str, (ROOT, ROOT / "example_project"))),
        "DJANGO_SETTINGS_MODULE": "tests.browser.settings",
        "TESTS_DATABASE": str(database),
        "CLOUDRUN_JOBS_ENVIRONMENT": "production",
        "CLOUDRUN_JOBS_PROJECT": "acme",
        "CLOUDRUN_JOBS_REGION": "europe-west4",
        "BROWSER_UNFOLD": "1" if unfold else "",
    }
    return (
        found if emulator is None else {**found, "CLOUDRUN_JOBS_OPTIONS": json.dumps({"endpoint": emulator.grpc})}
    )


def fill(database: Path) -> None:
    """Create the users and runs of `tests.browser.records`."""
    env = {**os.environ, **variables(database)}
    subprocess.run([sys.executable, "-m", "tests.browser.records"], check=True, cwd=ROOT, env=env)


def deploy(emulator: Emulator, database: Path, command: str = "walk") -> None:
    """Create the Cloud Run job of the command."""
    declared = job("python", "manage.py", env={**variables(database), "PYTHONUNBUFFERED": "1"})
    Cloud(emulator).create(declared, f"{command}-production")


class Site:
    """A server process, which can be stopped and started again on the same port."""

    def __init__(self, database: Path, emulator: Emulator | None = None, *, unfold: bool = False) -> None:
        self.port = free_port()
        self._env = {**os.environ, **variables(database, emulator, unfold=unfold)}
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        options = ["--threads=8", "--no-control-socket", "--graceful-timeout=1", "--log-level=warning"]
        bind = f"--bind=127.0.0.1:{self.port}"
        command = [sys.executable, "-m", "gunicorn", *options, bind, "tests.browser.wsgi"]
        self._process = subprocess.Popen(command, cwd=ROOT, env=self._env)
        wait_for(lambda: listens(self.port, self._process))

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(30)


@contextmanager
def serve(database: Path, emulator: Emulator | None = None, *, unfold: bool = False) -> Iterator[Site]:
    """Start the server; yield it."""
    site = Site(database, emulator, unfold=unfold)
    try:
        yield site
    finally:
        site.stop()
