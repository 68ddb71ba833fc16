"""What `delay()` costs on the cloudrun backend, against the bare call of Google's client."""

from __future__ import annotations

import os
import subprocess
import sys
from uuid import uuid4

from .measuring import interleaved, report, timed

ROUNDS = 400
SERVER = """
import sys
from tests.cloudrun.server import serve
with serve() as server:
    print(server.endpoint, flush=True)
    sys.stdin.read()
"""
JOB = "projects/acme/locations/asia-northeast1/jobs/echo-production"


def main() -> None:
    server = subprocess.Popen(
        [sys.executable, "-c", SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert server.stdout is not None
    try:
        measure(server.stdout.readline().strip())
    finally:
        server.kill()


def measure(endpoint: str) -> None:
    os.environ |= {
        "DJANGO_SETTINGS_MODULE": "tests.settings",
        "CLOUDRUN_JOBS_ENVIRONMENT": "production",
        "CLOUDRUN_JOBS_PROJECT": "acme",
        "CLOUDRUN_JOBS_REGION": "asia-northeast1",
        "CLOUDRUN_JOBS_OPTIONS": f'{{"endpoint": "{endpoint}"}}',
    }
    import django

    django.setup()
    import grpc
    from google.cloud import run_v2
    from google.cloud.run_v2.services.jobs.transports import JobsGrpcTransport

    from tests.jobs.management.commands.echo import Command

    def client() -> run_v2.JobsClient:
        return run_v2.JobsClient(transport=JobsGrpcTransport(channel=grpc.insecure_channel(endpoint)))

    def run_job(client: run_v2.JobsClient) -> object:
        variable = run_v2.EnvVar(name="CLOUDRUN_JOBS_RUN_ID", value=str(uuid4()))
        override = run_v2.RunJobRequest.Overrides.ContainerOverride(args=["echo", "--partner=7"], env=[variable])
        overrides = run_v2.RunJobRequest.Overrides(container_overrides=[override])
        return client.run_job(run_v2.RunJobRequest(name=JOB, overrides=overrides), timeout=30).metadata.name

    kept = client()
    sides = {
        "JobsClient.run_job, kept client": lambda: timed(lambda: run_job(kept)),
        "the same once more (noise)": lambda: timed(lambda: run_job(kept)),
        "delay()": lambda: timed(lambda: Command().delay(partner=7).execution_name),
        "a view that makes a client per call": lambda: timed(lambda: run_job(client())),
    }
    interleaved(sides, 20)
    title = f"Sending a job to a server on this machine ({ROUNDS} rounds; delay() at most 1.15)"
    report(title, interleaved(sides, ROUNDS), base=next(iter(sides)))
