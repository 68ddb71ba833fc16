"""Measure the pages of 200 declared jobs, with a thousand runs and with a million."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.http import create_databases
from tests.servers import sql

ROOT = Path(__file__).resolve().parent.parent
SIZES = (1_000, 1_000_000)
JOBS = 200
COMMAND = """
from cloudrun_jobs import CloudRunJobs

class Command(CloudRunJobs):
    schedule = "{minute} * * * *"

    def run(self, *args, **options):
        pass
"""


def main() -> None:
    """Measure against PostgreSQL, in one process."""
    postgres = sql.postgres()
    try:
        with TemporaryDirectory() as directory:
            declare(Path(directory))
            databases = create_databases(sql.postgres_settings(postgres.port), *(f"runs_{size}" for size in SIZES))
            environment = {**os.environ, "BENCHMARK_DATABASES": json.dumps(databases), "PYTHONPATH": directory}
            worker = [sys.executable, "-m", "benchmarks.dashboard_worker"]
            subprocess.run(worker, cwd=ROOT, env=environment, check=True)
    finally:
        postgres.stop()


def declare(directory: Path) -> None:
    """Write an app with the jobs, each with a schedule."""
    commands = directory / "many_jobs/management/commands"
    commands.mkdir(parents=True)
    for package in (commands, *list(commands.parents)[:2]):
        (package / "__init__.py").touch()
    for number in range(JOBS):
        (commands / f"job_{number}.py").write_text(COMMAND.format(minute=number % 60))


if __name__ == "__main__":
    main()
