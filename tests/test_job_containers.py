"""Jobs that were created elsewhere run on the emulator as their images start them."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from google.cloud import run_v2

from tests.emulator.cloud import Cloud, job
from tests.emulator.fixtures import cloudrun_emulator

__all__ = ["cloudrun_emulator"]

pytestmark = pytest.mark.faults  # It starts processes.

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def cloudrun_emulator_options() -> dict[str, Any]:
    return {"directory": ROOT / "tests"}


def command_of_run(path: Path) -> tuple[str, ...]:
    """Return what the only run recorded of its job."""
    with closing(sqlite3.connect(path)) as connection:
        row: tuple[str, ...]
        (row,) = connection.execute("SELECT command, job_name, script, status FROM cloudrun_jobs_jobrun")
        return row


@pytest.mark.parametrize(
    ("command", "arguments"),
    [([], ["in-request"]), (["python"], ["manage.py", "in_request"])],
    ids=["hyphens", "python"],
)
def test_console_job_runs(
    cloudrun_emulator: Any,
    process_database: Path,
    tmp_path: Path,
    command: list[str],
    arguments: list[str],
) -> None:
    """An execution without overrides is recorded under the command, with the job's own name."""
    variables = {
        "PYTHONPATH": os.pathsep.join(map(str, [ROOT, ROOT / "example_project"])),
        "DJANGO_SETTINGS_MODULE": "tests.settings",
        "TESTS_DATABASE": str(process_database),
        "IN_REQUEST_DIRECTORY": str(tmp_path),
        "CLOUDRUN_JOBS_ENVIRONMENT": "production",
        "CLOUDRUN_JOBS_PROJECT": "acme",
        "CLOUDRUN_JOBS_REGION": "europe-west4",
    }
    declared = job(*command, env=variables)
    declared.template.template.containers[0].args = arguments
    outcome: run_v2.Execution = Cloud(cloudrun_emulator).finish(declared, "console")

    assert outcome.succeeded_count == 1, cloudrun_emulator.logs.all()
    assert command_of_run(process_database) == ("in_request", "console", "", "succeeded")
