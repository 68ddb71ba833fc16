"""Measure `manage.py cloudrun_jobs`: `list` against gcloud, `runs` of a million rows, reads of `logs --follow`.

Both `list` and gcloud are processes that call the same emulator, in turn. `runs` reads PostgreSQL.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.measuring import interleaved, report, timed
from benchmarks.startup import MODELS, make_project

ROOT = Path(__file__).resolve().parent.parent
JOBS, ROUNDS = 200, 9
FOLLOWERS, WINDOW_SECONDS = 10, 60.0
SIZES, READ_ROUNDS = (1_000, 1_000_000), 5
REGION, ACCOUNT = "europe-west4", "scheduler@acme.iam.gserviceaccount.com"
COMMAND = """
from cloudrun_jobs import CloudRunJobs
class Command(CloudRunJobs):
    schedule, image, timeout = "0 3 * * *", "bench", 600
    def run(self, *args, **options):
        pass
"""
DEPLOY = """
from django.core.management import call_command
from cloudrun_jobs.deploy.cloudrun.jobs import Jobs
Jobs.writes_per_minute = 100_000
call_command("sync_cloudrun_jobs")
call_command("sync_cloudrun_schedules")
""".strip()
START = f"""
from app.management.commands.job_0 import Command
for _ in range({FOLLOWERS}):
    print(Command().delay().run_id)
""".strip()
COUNT = """
import io
from django.core.management import call_command
from django.db import connection
from django.test.utils import CaptureQueriesContext
with CaptureQueriesContext(connection) as queries:
    call_command("cloudrun_jobs", "list", stdout=io.StringIO(), stderr=io.StringIO())
print(len(queries))
""".strip()


def main() -> None:
    with TemporaryDirectory() as directory:
        project = _project(Path(directory))
        with _emulator() as emulator:
            environment = {**os.environ, **_variables(emulator)}
            _list(project, emulator, environment, Path(directory))
            _follow(project, emulator, environment)
    _read()


@contextmanager
def _emulator() -> Iterator[Any]:
    from cloudrun_jobs.emulator import Emulator

    with Emulator() as emulator:
        yield emulator


def _variables(emulator: Any) -> Mapping[str, str]:
    values = {"ENVIRONMENT": "production", "PROJECT": "acme", "REGION": REGION}
    options = json.dumps({"endpoint": emulator.grpc, "scheduler_service_account": ACCOUNT})
    return {**{f"CLOUDRUN_JOBS_{name}": value for name, value in values.items()}, "CLOUDRUN_JOBS_OPTIONS": options}


def _project(directory: Path) -> Path:
    manage = make_project(directory / "shop", [*MODELS, "cloudrun_jobs", "app"], "", "", "", command=COMMAND)
    commands = directory / "shop/app/management/commands"
    (commands / "noop.py").unlink()
    for number in range(JOBS):
        (commands / f"job_{number}.py").write_text(COMMAND)
    subprocess.run([sys.executable, str(manage), "migrate", "--verbosity=0"], check=True)
    return manage


def _shell(project: Path, code: str, environment: Mapping[str, str]) -> str:
    command = [sys.executable, str(project), "shell", "--verbosity=0", "-c", code]
    return subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True).stdout


def _list(project: Path, emulator: Any, environment: Mapping[str, str], directory: Path) -> None:
    _shell(project, DEPLOY, environment)
    emulator.calls.clear()
    queries = _shell(project, COUNT, environment).split()[-1]
    calls = sum(emulator.calls.values())
    print(f"\n`list` of {JOBS} jobs: {calls} calls (at most 3), {queries} queries (at most 6)")
    ours = [sys.executable, str(project), "cloudrun_jobs", "list"]
    sides = {"list": lambda: timed(lambda: _quietly(ours, environment))}
    if program := shutil.which("gcloud"):  # Not the one of the tests, which is loaded before it is called.
        from tests.emulator.gcloud_cli import Gcloud

        gcloud = Gcloud(emulator.http, directory / "gcloud").environment()
        theirs = [program, "run", "jobs", "list"]
        sides["gcloud run jobs list"] = lambda: timed(lambda: _quietly(theirs, gcloud))
    interleaved(sides, 1)
    report(f"{JOBS} jobs", interleaved(sides, ROUNDS), base="list")


def _quietly(command: list[str], environment: Mapping[str, str]) -> None:
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.count("\n") > JOBS


def _follow(project: Path, emulator: Any, environment: Mapping[str, str]) -> None:
    """Follow executions that write nothing, for a minute, from separate processes."""
    from google.cloud import run_v2

    parent = f"projects/acme/locations/{REGION}"
    job = emulator.clients.jobs.get_job(name=f"{parent}/jobs/job-0-production")
    job.template.template.containers = [run_v2.Container(image="bench", command=["/bin/sh", "-c", "sleep 600"])]
    emulator.clients.jobs.update_job(job=job).result()
    ids = _shell(project, START, environment).split()[-FOLLOWERS:]
    emulator.calls.clear()
    command = [sys.executable, str(project), "cloudrun_jobs", "logs", "--follow"]
    followers = [subprocess.Popen([*command, each], env=environment, stderr=subprocess.DEVNULL) for each in ids]
    try:
        while emulator.calls["LoggingServiceV2.ListLogEntries"] < FOLLOWERS:
            time.sleep(0.1)
        before = emulator.calls["LoggingServiceV2.ListLogEntries"] - FOLLOWERS  # The first reads count.
        time.sleep(WINDOW_SECONDS - 1)  # Some of the first reads were a second ago.
        reads = emulator.calls["LoggingServiceV2.ListLogEntries"] - before
        assert all(follower.poll() is None for follower in followers)
    finally:
        for follower in followers:
            follower.kill()
            follower.wait()
    print(f"\n`logs --follow` of {FOLLOWERS} executions: {reads} reads in the first minute (less than 60)")


def _read() -> None:
    """Time `runs` with few rows and with many, in turn."""
    import psycopg

    from tests.servers import sql

    postgres = sql.postgres()
    try:
        names = {size: f"runs_{size}" for size in SIZES}
        where = f"host=127.0.0.1 port={postgres.port} user=postgres"
        with psycopg.connect(where, autocommit=True) as connection:
            for name in names.values():
                connection.execute(f'CREATE DATABASE "{name}"')
        databases = {size: {**sql.postgres_settings(postgres.port), "NAME": name} for size, name in names.items()}
        for size, database in databases.items():
            _worker(database, "fill", size)
        rounds = [
            {size: json.loads(_worker(database, "read", size)) for size, database in databases.items()}
            for _ in range(READ_ROUNDS)
        ]
    finally:
        postgres.stop()
    small, large = SIZES
    print(f"\nReading, p95, medians of {READ_ROUNDS} rounds: {small} against {large} rows (ratio at most 2)")
    for what in rounds[0][small]:
        few, many = (statistics.median(each[size][what] for each in rounds) for size in SIZES)
        print(f"  {what:24} {few * 1000:6.2f} ms   {many * 1000:6.2f} ms   ratio {many / few:.2f}")


def _worker(database: Mapping[str, Any], work: str, size: int) -> str:
    variables = {"BENCHMARK_DATABASES": json.dumps({"default": database})}
    command = [sys.executable, "-m", "benchmarks.cli_worker", work, str(size)]
    return subprocess.run(
        command, env={**os.environ, **variables}, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True
    ).stdout


if __name__ == "__main__":
    main()
