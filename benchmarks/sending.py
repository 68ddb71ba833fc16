"""Compare `delay()` on the Cloud Run backend with a bare call of Google's client."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING
from uuid import uuid4

from benchmarks.measuring import interleaved, report, timed

if TYPE_CHECKING:
    from google.cloud import run_v2

ROUNDS = 400
PLACE = "projects/acme/locations/asia-northeast1"
JOB = f"{PLACE}/jobs/echo-production"


def main() -> None:
    """Measure against the emulator."""
    command = [sys.executable, "-m", "cloudrun_jobs.emulator", "--port=0", "--grpc-port=0", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            measure(json.loads(server.stdout.readline())["grpc"])
        finally:
            server.terminate()


def measure(endpoint: str) -> None:
    with TemporaryDirectory() as directory:
        _measure(endpoint, directory)


def _measure(endpoint: str, directory: str) -> None:
    os.environ |= {
        "DJANGO_SETTINGS_MODULE": "tests.settings",
        "TESTS_DATABASE": f"{directory}/records.sqlite3",
        "CLOUDRUN_JOBS_ENVIRONMENT": "production",
        "CLOUDRUN_JOBS_PROJECT": "acme",
        "CLOUDRUN_JOBS_REGION": "asia-northeast1",
        "CLOUDRUN_JOBS_OPTIONS": json.dumps({"endpoint": endpoint, "runs_per_minute": 10_000}),
    }
    import django

    django.setup()
    import grpc
    from django.core.management import call_command
    from google.cloud import run_v2
    from google.cloud.run_v2.services.jobs.transports import JobsGrpcTransport

    from tests.jobs.management.commands.echo import Command

    call_command("migrate", verbosity=0)

    def client() -> run_v2.JobsClient:
        return run_v2.JobsClient(transport=JobsGrpcTransport(channel=grpc.insecure_channel(endpoint)))

    def run_job(client: run_v2.JobsClient) -> object:
        variable = run_v2.EnvVar(name="CLOUDRUN_JOBS_RUN_ID", value=str(uuid4()))
        override = run_v2.RunJobRequest.Overrides.ContainerOverride(args=["echo", "--partner=7"], env=[variable])
        overrides = run_v2.RunJobRequest.Overrides(container_overrides=[override])
        return client.run_job(run_v2.RunJobRequest(name=JOB, overrides=overrides), timeout=30).metadata.name

    kept = client()
    create_job(kept)
    sides = {
        "JobsClient.run_job, kept client": lambda: timed(lambda: run_job(kept)),
        "the same once more (noise)": lambda: timed(lambda: run_job(kept)),
        "delay()": lambda: timed(lambda: Command().delay(partner=7).execution_name),
        "a view that makes a client per call": lambda: timed(lambda: run_job(client())),
    }
    interleaved(sides, 20)
    medians = interleaved(sides, ROUNDS)
    report(
        f"Sending a job to the emulator ({ROUNDS} rounds); delay() writes its record, too",
        medians,
        base=next(iter(sides)),
    )
    report("The same, against delay()", medians, base="delay()")


def create_job(client: run_v2.JobsClient) -> None:
    """Create the job, with a task that does nothing."""
    from google.cloud import run_v2

    container = run_v2.Container(image="bench", command=["/bin/true"])
    task = run_v2.TaskTemplate(containers=[container], max_retries=0)
    job = run_v2.Job(template=run_v2.ExecutionTemplate(template=task))
    client.create_job(parent=PLACE, job=job, job_id="echo-production").result(30)
