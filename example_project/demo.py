"""The demo of `make demo`: run the job with manage.py, with .delay() inline, and on the emulator."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from google.cloud import run_v2

from cloudrun_jobs.emulator import Emulator

PROJECT = Path(__file__).parent
JOB = "collect-rates-production"
PARENT = "projects/acme/locations/asia-northeast1"

INLINE_SESSION = """
from datetime import date
from rates.management.commands.collect_rates import Command
operation = Command().delay(since=date(2026, 1, 1), currency=["JPY", "KRW"])
operation.done()
operation.result()
"""
EMULATOR_SESSION = """
from cloudrun_jobs.models import JobRun
from rates.management.commands.collect_rates import Command
operation = Command().delay(currency=["JPY", "KRW"])
operation.execution_name
operation.result(timeout=120)
run = JobRun.objects.get(pk=operation.run_id)
run.status, run.succeeded_count, run.task_count
"""


def manage(title: str, *argv: str) -> None:
    """Print and run a manage.py command."""
    print(f"\n==> {title}\n$ python example_project/manage.py {' '.join(argv)}", flush=True)
    subprocess.run([sys.executable, str(PROJECT / "manage.py"), *argv], check=True)


def run_session(title: str, session: str, environment: Mapping[str, str]) -> None:
    """Run the lines of a Python session in a process of their own."""
    print(f"\n==> {title}", flush=True)
    environment = {**os.environ, **environment, "PYTHONPATH": str(PROJECT)}
    subprocess.run([sys.executable, __file__, session], env=environment, check=True)


def replay(session: str) -> None:
    """Print and execute the lines of a session one by one."""
    import django

    django.setup()
    names: dict[str, object] = {}
    for line in session.strip().splitlines():
        print(f">>> {line}", flush=True)
        exec(compile(line, "<demo>", "single"), names)


def production_environment(emulator: Emulator) -> dict[str, str]:
    """Return the environment variables of a production that runs on the emulator."""
    return {
        "CLOUDRUN_JOBS_ENVIRONMENT": "production",
        "CLOUDRUN_JOBS_PROJECT": "acme",
        "CLOUDRUN_JOBS_REGION": "asia-northeast1",
        "CLOUDRUN_JOBS_OPTIONS": json.dumps({"endpoint": emulator.grpc}),
        "EXAMPLE_SECRET_KEY": "only for the demonstration",
    }


def create_job(emulator: Emulator, job: str = JOB, **env: str) -> None:
    """Create the Cloud Run Job with Google's client, as a deployment does."""
    variables = {
        **env,
        "CLOUDRUN_JOBS_ENVIRONMENT": "production",
        "EXAMPLE_SECRET_KEY": "only for the demonstration",
        "PYTHONUNBUFFERED": "1",
    }
    if database := os.environ.get("EXAMPLE_DATABASE"):
        variables["EXAMPLE_DATABASE"] = database
    container = run_v2.Container(
        image="example",
        command=["python", "manage.py"],
        env=[run_v2.EnvVar(name=name, value=value) for name, value in variables.items()],
    )
    template = run_v2.ExecutionTemplate(template=run_v2.TaskTemplate(containers=[container], max_retries=0))
    print(f"\n==> The emulator, and the job on it\ncreated {PARENT}/jobs/{job}", flush=True)
    emulator.clients.jobs.create_job(parent=PARENT, job=run_v2.Job(template=template), job_id=job)


def show_logs(emulator: Emulator) -> None:
    """Print the log entries of the job, once its container has exited."""
    executions = emulator.clients.executions
    while any(not each.completion_time for each in executions.list_executions(parent=f"{PARENT}/jobs/{JOB}")):
        time.sleep(0.1)
    print("\n==> Its logs", flush=True)
    for entry in emulator.logs.all():
        print(entry.text_payload, flush=True)


def main() -> None:
    os.environ["DJANGO_SETTINGS_MODULE"] = "example.settings"
    manage("The database", "migrate", "--verbosity=0")
    manage("The job, as a command, on all published rates", "collect_rates")
    run_session("The job, with .delay() from Python: it runs inline", INLINE_SESSION, {})
    with Emulator(directory=PROJECT) as emulator:
        create_job(emulator)
        try:
            run_session(
                "The same call in production: it runs on the emulator",
                EMULATOR_SESSION,
                production_environment(emulator),
            )
        finally:
            show_logs(emulator)


if __name__ == "__main__":
    if sys.argv[1:]:
        replay(sys.argv[1])
    else:
        main()
