"""Clients after a fork."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path
from threading import Event
from urllib.request import urlopen

import pytest

from tests.backends.server import CloudRun
from tests.waiting import wait_for

REPOSITORY = Path(__file__).parents[2]


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def listens(port: int) -> bool:
    with socket.socket() as caller:
        return caller.connect_ex(("127.0.0.1", port)) == 0


@pytest.mark.usefixtures("process_database")
@pytest.mark.parametrize("worker_class", ["sync", "gthread"])
def test_worker_forked_during_a_call_can_start_jobs(
    cloud_run: CloudRun, tmp_path: Path, worker_class: str
) -> None:
    """Under `gunicorn --preload` every request is answered, even if a call was in flight at the fork."""
    in_flight, port = tmp_path / "in-flight", free_port()
    cloud_run.hold, cloud_run.on_request = Event(), in_flight.touch
    command = [sys.executable, "-m", "gunicorn", "--preload", "--workers=2", f"--worker-class={worker_class}"]
    gunicorn = subprocess.Popen(
        [*command, f"--bind=127.0.0.1:{port}", "--timeout=20", "tests.backends.preloaded:application"],
        cwd=REPOSITORY,
        env={
            **os.environ,
            "IN_FLIGHT": str(in_flight),
            "CLOUDRUN_JOBS_ENVIRONMENT": "production",
            "CLOUDRUN_JOBS_PROJECT": "acme",
            "CLOUDRUN_JOBS_REGION": "asia-northeast1",
            "CLOUDRUN_JOBS_OPTIONS": f'{{"endpoint": "{cloud_run.endpoint}"}}',
        },
    )
    try:
        wait_for(lambda: listens(port))
        answers = [urlopen(f"http://127.0.0.1:{port}/", timeout=15).read() for _ in range(4)]
    finally:
        cloud_run.hold.set()
        gunicorn.terminate()
        gunicorn.wait(30)

    assert len({answer.rpartition(b"/")[2] for answer in answers if b"/echo-production-" in answer}) == 4
    parent, *workers = cloud_run.peers
    assert parent not in workers


FORK = """
import os, sys, weakref
from cloudrun_jobs.backends.cloudrun import clients
from cloudrun_jobs.backends.cloudrun.server import Server

client = clients.jobs(Server("127.0.0.1:1"))
kept = weakref.ref(client)
number = id(client)
del client
child = os.fork()
if child == 0:
    os._exit(0 if id(clients.jobs(Server("127.0.0.1:1"))) != number and kept() is not None else 1)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_forked_child_does_not_close_the_client() -> None:
    """The child gets another client; the parent's is neither closed nor collected."""
    forked = subprocess.run([sys.executable, "-W", "ignore", "-c", FORK], cwd=REPOSITORY, timeout=60, check=False)

    assert forked.returncode == 0
