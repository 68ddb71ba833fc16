"""Compare the start of `manage.py <job>` with that of a plain command in a plain project."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType

from benchmarks.measuring import Seconds, interleaved, report

ROUNDS = 25
MODELS = ["django.contrib.auth", "django.contrib.contenttypes"]  # As almost every project has.
CONTAINER = {
    "CLOUD_RUN_JOB": "noop-production",
    "CLOUD_RUN_TASK_INDEX": "0",
    "CLOUD_RUN_TASK_ATTEMPT": "0",
    "CLOUD_RUN_TASK_COUNT": "1",
    "CLOUDRUN_JOBS_ENVIRONMENT": "production",
    "CLOUDRUN_JOBS_PROJECT": "acme",
    "CLOUDRUN_JOBS_REGION": "asia-northeast1",
}
MANAGE = """
import os, sys
from django.core.management import execute_from_command_line
os.environ["DJANGO_SETTINGS_MODULE"] = "settings"
execute_from_command_line(sys.argv)
"""
SETTINGS = """
SECRET_KEY = "x"
INSTALLED_APPS = {apps}
DATABASES = {{"default": {{"ENGINE": "django.db.backends.sqlite3", "NAME": {directory!r} + "/db.sqlite3"}}}}
"""
# Without locks: benchmarks/locks.py measures their statements.
COMMAND = """
import time
from {module} import {base}
class Command({base}):
    parallelism, overlap = None, "allow"
    def {method}(self, *args, **options):
        print(time.monotonic())
"""
# A job writes two rows before its work begins.
TWO_ROWS = """
import time
from django.contrib.contenttypes.models import ContentType
from django.core.management.base import BaseCommand
class Command(BaseCommand):
    def handle(self, *args, **options):
        for number in range(2):
            ContentType(app_label=time.time_ns(), model=number).save(force_insert=True)
        print(time.monotonic())
"""


def make_project(
    directory: Path, apps: list[str], module: str, base: str, method: str, command: str = COMMAND
) -> Path:
    """Write a project with one command, which prints the time at which its work begins; return its manage.py."""
    commands = directory / "app/management/commands"
    commands.mkdir(parents=True)
    (directory / "settings.py").write_text(SETTINGS.format(apps=apps, directory=str(directory)))
    (commands / "noop.py").write_text(command.format(module=module, base=base, method=method))
    manage = directory / "manage.py"
    manage.write_text(MANAGE)
    return manage


def start(manage: Path, environment: Mapping[str, str] = MappingProxyType({})) -> Seconds:
    """Run the command; return the time from before its process to the first line of its work."""
    execution = f"noop-production-{time.time_ns()}"
    before = time.monotonic()
    output = subprocess.run(
        [sys.executable, str(manage), "noop"],
        env={
            **os.environ,
            **CONTAINER,
            "CLOUD_RUN_EXECUTION": execution,
            "PYTHONDONTWRITEBYTECODE": "",
            **environment,
        },
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    # The package's own records are lines of JSON.
    return float(next(line for line in output.splitlines() if not line.startswith("{"))) - before


def main() -> None:
    with TemporaryDirectory() as directory:
        plain = make_project(
            Path(directory, "plain"), [*MODELS, "app"], "django.core.management.base", "BaseCommand", "handle"
        )
        job = make_project(
            Path(directory, "job"), [*MODELS, "cloudrun_jobs", "app"], "cloudrun_jobs", "CloudRunJobs", "run"
        )
        writing = make_project(Path(directory, "writing"), [*MODELS, "app"], "", "", "", command=TWO_ROWS)
        for manage in (plain, job, writing):
            subprocess.run([sys.executable, str(manage), "migrate", "--verbosity=0"], check=True)
        sides = {
            "plain command, project without cloudrun_jobs": lambda: start(plain),
            "the same once more (noise)": lambda: start(plain),
            "plain command that writes two rows": lambda: start(writing),
            "CloudRunJobs": lambda: start(job),
        }
        interleaved(sides, 2)  # Writes bytecode.
        medians = interleaved(sides, ROUNDS)
        title = f"From `manage.py noop` to the first line of the work ({ROUNDS} rounds; at most 1.06)"
        report(title, medians, base=next(iter(sides)))
        report("The same, against the plain command that writes", medians, base=list(sides)[2])
