"""What `make demo` shows: the job by manage.py, by .delay() from Python, and on a Cloud Run of this machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from google.cloud import run_v2

from cloudrun_jobs.emulator import Emulator

PROJECT = Path(__file__).parent
JOB = "collect-rates-production"
PLACE = "projects/acme/locations/asia-northeast1"

HERE = """
from datetime import date
from rates.management.commands.collect_rates import Command
operation = Command().delay(since=date(2026, 1, 1), currency=["JPY", "KRW"])
operation.done()
operation.result()
"""
IN_THE_CLOUD = """
from rates.management.commands.collect_rates import Command
operation = Command().delay(currency=["JPY", "KRW"])
operation.execution_name
operation.result(timeout=120)
operation.metadata.succeeded_count, operation.metadata.task_count
"""


def manage(title: str, *argv: str) -> None:
    """Run manage.py as a person would type it."""
    print(f"\n==> {title}\n$ python example_project/manage.py {' '.join(argv)}", flush=True)
    subprocess.run([sys.executable, str(PROJECT / "manage.py"), *argv], check=True)


def python(title: str, session: str, environment: Mapping[str, str]) -> None:
    """Type the lines at a Python prompt."""
    print(f"\n==> {title}", flush=True)
    environment = {**os.environ, **environment, "PYTHONPATH": str(PROJECT)}
    subprocess.run([sys.executable, __file__, session], env=environment, check=True)


def type_in(session: str) -> None:
    """Run the lines of a session one by one, showing each."""
    import django

    django.setup()
    names: dict[str, object] = {}
    for line in session.strip().splitlines():
        print(f">>> {line}", flush=True)
        exec(compile(line, "<demo>", "single"), names)


def production(emulator: Emulator) -> dict[str, str]:
    """The variables of a production that is on this machine."""
    return {
        "CLOUDRUN_JOBS_ENVIRONMENT": "production",
        "CLOUDRUN_JOBS_PROJECT": "acme",
        "CLOUDRUN_JOBS_REGION": "asia-northeast1",
        "CLOUDRUN_JOBS_OPTIONS": json.dumps({"endpoint": emulator.grpc}),
        "EXAMPLE_SECRET_KEY": "only for the demonstration",
    }


def create_job(emulator: Emulator) -> None:
    """Create the job as a deployment would, with Google's own client."""
    variables = {
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
    print(f"\n==> A Cloud Run on this machine, and the job on it\ncreated {PLACE}/jobs/{JOB}", flush=True)
    emulator.clients.jobs.create_job(parent=PLACE, job=run_v2.Job(template=template), job_id=JOB).result(30)


def show_logs(emulator: Emulator) -> None:
    """Print what the job wrote, which Cloud Run keeps as log entries."""
    print("\n==> Its logs", flush=True)
    for entry in emulator.logs.all():
        print(entry.text_payload, flush=True)


def main() -> None:
    os.environ["DJANGO_SETTINGS_MODULE"] = "example.settings"
    manage("The database", "migrate", "--verbosity=0")
    manage("The job, as a command, on the whole history", "collect_rates")
    python("The job, by .delay(), from Python: it runs here", HERE, {})
    with Emulator(directory=PROJECT) as emulator:
        create_job(emulator)
        try:
            python("The same call in production: it runs there", IN_THE_CLOUD, production(emulator))
        finally:
            show_logs(emulator)


if __name__ == "__main__":
    if sys.argv[1:]:
        type_in(sys.argv[1])
    else:
        main()
