"""Containers, the emulator and commands in a terminal leave the value of a secret option nowhere."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from cloudrun_jobs.argv import redaction
from tests.emulator.cloud import PLACE, Cloud, eventually, job
from tests.emulator.fixtures import cloudrun_emulator

__all__ = ["cloudrun_emulator"]

pytestmark = pytest.mark.faults  # It starts many processes.

ROOT = Path(__file__).resolve().parents[1]
VALUE = "-s3cr\"et/'日本\\%41 &x"
ENDS = ["return", "error", "group", "CommandError", "exit", "item"]


@pytest.fixture
def cloudrun_emulator_options() -> dict[str, Any]:
    return {"secrets": {"token": ["old value", VALUE]}}


@pytest.fixture
def variables(process_database: Path) -> dict[str, str]:
    return {
        "PYTHONPATH": str(ROOT),
        "DJANGO_SETTINGS_MODULE": "tests.leaking.settings",
        "TESTS_DATABASE": str(process_database),
        "CLOUDRUN_JOBS_ENVIRONMENT": "production",
        "CLOUDRUN_JOBS_PROJECT": "acme",
        "CLOUDRUN_JOBS_REGION": "europe-west4",
    }


@pytest.fixture(autouse=True)
def _searched() -> Iterator[None]:
    redaction.protect([VALUE])
    yield
    redaction.release([VALUE])


def assert_nowhere(text: str) -> None:
    """Assert that the text has the value in no form."""
    assert text == redaction.mask(text)


def database(path: Path) -> str:
    """Return all rows of all tables."""
    with closing(sqlite3.connect(path)) as connection:
        tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
        return repr([connection.execute(f'SELECT * FROM "{name}"').fetchall() for (name,) in tables])


def processes(own_database: Path) -> str:
    """Return the command lines and environments of this user's processes, without those of other tests."""
    found = []
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            command, variables = (
                (directory / name).read_text(errors="replace") for name in ("cmdline", "environ")
            )
        except OSError:
            continue  # It has ended, or is another user's.
        # Other tests pass the value on the command line.
        if "TESTS_DATABASE=" not in variables or str(own_database) in variables:
            found += [command, variables]
    return "\n".join(found)


def manage(variables: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "django", *arguments]
    return subprocess.run(command, env={**os.environ, **variables}, capture_output=True, text=True, check=False)


def shown(variables: dict[str, str], path: Path) -> str:
    """Return the output of the commands that show runs."""
    with closing(sqlite3.connect(path)) as connection:
        ids = [row[0] for row in connection.execute("SELECT id FROM cloudrun_jobs_jobrun")]
    outputs = [manage(variables, "cloudrun_jobs", "runs").stdout]
    outputs += [
        manage(variables, "cloudrun_jobs", "show", each, "--json", "--traceback").stdout for each in ids[:1]
    ]
    return "\n".join(outputs)


def test_containers(
    cloudrun_emulator: Any, variables: dict[str, str], process_database: Path, tmp_path: Path
) -> None:
    """However the run ends, no table, log, page, resource, command or process contains the value."""
    cloud = Cloud(cloudrun_emulator)
    cloud.create(job(sys.executable, "-m", "django", env=variables), "leak-production")
    run = cloudrun_emulator.clients.jobs.run_job
    name = f"{PLACE}/jobs/leak-production"
    started = []
    for end in ENDS:
        arguments = ["leak", "--token=secret:token:2", f"--end={end}"]
        arguments += [f"--folder={tmp_path}"] if end == "return" else []
        overrides = {"container_overrides": [{"args": arguments}]}
        started.append(run({"name": name, "overrides": overrides}).metadata.name)
    eventually(lambda: (tmp_path / "started").exists())
    running = processes(process_database)
    (tmp_path / "go").touch()
    outcomes = [cloud.outcome(each) for each in started]
    urls = [f"{cloudrun_emulator.http}/", *(f"{cloudrun_emulator.http}/executions/{each}" for each in started)]
    pages = [urllib.request.urlopen(url).read().decode() for url in urls]
    logged = "\n".join(map(str, cloudrun_emulator.logs.all()))
    rows = database(process_database)

    assert "--token=secret:token:2" in running
    assert [each.succeeded_count for each in outcomes] == [1, 0, 0, 0, 0, 1]
    assert logged.count("***") > 5 * len(ENDS)
    assert rows.count("***") >= 2 * len(ENDS)
    for text in (running, logged, rows, *pages, *map(str, outcomes), shown(variables, process_database)):
        assert_nowhere(text)


@pytest.mark.parametrize("end", ["error", "group", "CommandError", "exit", "return"])
def test_terminal(variables: dict[str, str], process_database: Path, end: str) -> None:
    """The value may be passed on the command line; the output and the record do not repeat it."""
    variables |= {"CLOUDRUN_JOBS_ENVIRONMENT": "local"}
    finished = manage(variables, "leak", f"--token={VALUE}", f"--end={end}")

    assert (finished.returncode == 0) == (end == "return")
    assert_nowhere(finished.stdout + finished.stderr + database(process_database))
    assert json.dumps(["leak", "--token=[secret]", f"--end={end}"]) in database(process_database)
    assert "***" in database(process_database)
