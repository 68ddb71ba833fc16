"""Whole exports, as executions on the emulator of Cloud Run, counted in the bucket afterwards."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from shutil import copyfile
from typing import Any

import pytest

from cloudrun_jobs.emulator import Emulator
from tests.bigquery.conftest import Warehouse
from tests.bigquery.servers import PROJECT
from tests.emulator.cloud import PLACE, job

EXAMPLE = Path(__file__).parents[2] / "example_project"
TASKS_AT_ONCE = 6
INFO, ERROR = 200, 500  # Cloud Logging's severities.
SCRIPT = """
import json, sys, django
django.setup()
from cloudrun_jobs.models import JobRun
from export.management.commands.export_bigquery_tables import Command
how, options = sys.argv[1], json.loads(sys.argv[2])
operation = Command().delay(**options) if how == "delay" else JobRun.objects.get(pk=how).rerun(failed_only=True)
error = operation.exception(timeout=240)
run = JobRun.objects.get(pk=operation.run_id)
print(json.dumps({"id": str(run.pk), "status": run.status, "reason": run.reason, "result": run.return_value,
                  "tasks": run.task_count, "retried": run.retried_count, "error": error and str(error)}))
"""


@dataclass
class Cloud:
    emulator: Emulator
    warehouse: Warehouse
    environment: dict[str, str]

    def export(self, tasks: int, *, retries: int = 0, **options: Any) -> dict[str, Any]:
        """Run the export with this number of tasks, and return the data of its record."""
        declared = job(
            sys.executable,
            "manage.py",
            retries=retries,
            env=self.environment,
            task_count=tasks,
            # A rerun may have fewer tasks, and Cloud Run rejects fewer tasks than `task_parallelism`.
            parallelism=TASKS_AT_ONCE if tasks > TASKS_AT_ONCE else 0,
        )
        jobs = self.emulator.clients.jobs
        jobs.create_job(parent=PLACE, job=declared, job_id="export-bigquery-tables-production").result()
        place = {"dataset": self.warehouse.dataset, "bucket": self.warehouse.bucket, "project": PROJECT}
        return self._run("delay", {**place, **options})

    def rerun(self, run: str) -> dict[str, Any]:
        """Rerun what failed, and return the data of the new record."""
        return self._run(run, {})

    def _run(self, how: str, options: dict[str, Any]) -> dict[str, Any]:
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT, how, json.dumps(options)],
            env={**os.environ, **self.environment},
            cwd=EXAMPLE,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr
        result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return result

    def exported(self) -> dict[str, str]:
        """Return the run of each table that is whole: its manifest, the files it names, and no others."""
        objects = set(self.warehouse.objects())
        found = {}
        for name in sorted(name for name in objects if name.endswith("/manifest.json")):
            manifest = json.loads(self.warehouse.read(name))
            files = {file["name"] for file in manifest["files"]}
            assert files <= objects
            objects -= {name, *files}
            found[manifest["table"]] = manifest["run"]
        assert objects == set()
        return found

    def complaints(self) -> str:
        """Return what the tasks wrote that is not an INFO line, to be shown if a test fails."""
        lines = (entry.text_payload for entry in self.emulator.logs.all())
        return "\n".join(line for line in lines if not line.startswith(("INFO ", "Container called exit(0)")))

    def logged(self) -> set[tuple[int, str]]:
        """Return the severity and the table of each structured log entry that has one."""
        entries = [entry for entry in self.emulator.logs.all() if "table" in entry.json_payload]
        return {(entry.severity, entry.json_payload["table"]) for entry in entries}

    def kill_task(self, index: int) -> bool:
        """Kill the process of a task with SIGKILL; return False if there is none."""
        marks = {
            f"CLOUD_RUN_TASK_INDEX={index}".encode(),
            f"STORAGE_EMULATOR_HOST={self.environment['STORAGE_EMULATOR_HOST']}".encode(),
            f"BIGQUERY_EMULATOR_HOST={self.environment['BIGQUERY_EMULATOR_HOST']}".encode(),
        }
        for process in Path("/proc").iterdir():
            if process.name.isdecimal() and marks <= environ(process):
                os.kill(int(process.name), signal.SIGKILL)
                return True
        return False


def environ(process: Path) -> set[bytes]:
    try:
        return set((process / "environ").read_bytes().split(b"\0"))
    except OSError:
        return set()


@pytest.fixture
def cloud(warehouse: Warehouse, migrated: Path, tmp_path: Path) -> Iterator[Cloud]:
    copyfile(migrated, tmp_path / "example.sqlite3")
    with Emulator(directory=EXAMPLE) as emulator:
        environment = {
            "DJANGO_SETTINGS_MODULE": "example.settings",
            "EXAMPLE_SECRET_KEY": "only for tests",
            "EXAMPLE_DATABASE": str(tmp_path / "example.sqlite3"),
            "CLOUDRUN_JOBS_ENVIRONMENT": "production",
            "CLOUDRUN_JOBS_PROJECT": "acme",
            "CLOUDRUN_JOBS_REGION": "europe-west4",
            "CLOUDRUN_JOBS_OPTIONS": json.dumps({"endpoint": emulator.grpc}),
            "BIGQUERY_EMULATOR_HOST": os.environ["BIGQUERY_EMULATOR_HOST"],
            "STORAGE_EMULATOR_HOST": os.environ["STORAGE_EMULATOR_HOST"],
        }
        yield Cloud(emulator, warehouse, environment)


def names(count: int) -> list[str]:
    return [f"t{number:04}" for number in range(count)]


@pytest.mark.parametrize(("tables", "tasks"), [(10, 30), (30, 10), (0, 3), (1, 1)])
def test_each_table_is_exported_once(cloud: Cloud, tables: int, tasks: int) -> None:
    """Any number of tables on any number of tasks: each is exported, by one extract job, and no task fails."""
    cloud.warehouse.tables(names(tables))
    run = cloud.export(tasks)

    assert (run["status"], run["tasks"], run["error"]) == ("succeeded", tasks, None)
    assert cloud.exported() == dict.fromkeys(names(tables), run["id"])
    assert sorted(cloud.warehouse.stand_in.extracted()) == names(tables)
    size = len(b"number\n1\n2\n") * tables
    assert run["result"] == {"exported": tables, "skipped": [], "rows": 2 * tables, "bytes": size, "errors": []}


@pytest.mark.parametrize("tables", [100, pytest.param(1000, marks=pytest.mark.faults)])
def test_killed_task_loses_no_table(cloud: Cloud, tables: int) -> None:
    """If a task is killed, each table is still exported by one extract job, and counted in the result."""
    cloud.warehouse.tables(names(tables))
    begun, killed = itertools.count(1), []

    def kill(table: str) -> None:
        if next(begun) > tables // 3 and not killed and cloud.kill_task(3):
            killed.append(table)

    cloud.warehouse.stand_in.faults.before_insert = kill
    run = cloud.export(8, retries=1)

    assert (run["status"], run["error"]) == ("succeeded", None), cloud.complaints()
    assert run["retried"] >= 1
    assert cloud.exported() == dict.fromkeys(names(tables), run["id"])
    assert (run["result"]["exported"], run["result"]["rows"]) == (tables, 2 * tables)
    assert cloud.warehouse.stand_in.errors() == []
    assert sorted(cloud.warehouse.stand_in.extracted()) == names(tables)


def test_table_that_is_deleted_after_the_listing_fails(cloud: Cloud) -> None:
    """The other tables are exported; the deleted one is listed with its error, and fails the run."""
    cloud.warehouse.tables(names(10))
    gone = iter(["t0009"])

    def delete(table: str) -> None:
        for name in gone:
            cloud.warehouse.execute(f"DROP TABLE {{dataset}}.{name}")

    cloud.warehouse.stand_in.faults.before_insert = delete
    run = cloud.export(3)

    assert (run["status"], run["reason"]) == ("failed", "items")
    assert cloud.exported() == dict.fromkeys(names(9), run["id"])
    assert run["result"]["exported"] == 9
    assert [error["table"] for error in run["result"]["errors"]] == ["t0009"]
    assert "Not found" in run["result"]["errors"][0]["error"]


def test_failed_table_is_exported_by_a_rerun(cloud: Cloud) -> None:
    """The other tables are exported, and a rerun of what failed exports only the failed one."""
    cloud.warehouse.tables(names(10))
    faults = cloud.warehouse.stand_in.faults
    faults.errors["t0004"] = "Backend error."
    run = cloud.export(4)

    assert (run["status"], run["reason"]) == ("failed", "items")
    assert run["result"]["errors"] == [{"table": "t0004", "error": "t0004: Backend error."}]
    assert sorted(cloud.warehouse.read_manifests()) == [name for name in names(10) if name != "t0004"]
    assert "t0004" in run["error"]
    assert cloud.logged() == {(ERROR if name == "t0004" else INFO, name) for name in names(10)}

    faults.errors.clear()
    before = len(cloud.warehouse.stand_in.extracted())
    again = cloud.rerun(run["id"])

    assert (again["status"], again["tasks"]) == ("succeeded", 1)
    assert cloud.warehouse.stand_in.extracted()[before:] == ["t0004"]
    assert cloud.exported() == {**dict.fromkeys(names(10), run["id"]), "t0004": again["id"]}
    assert (again["result"]["exported"], again["result"]["errors"]) == (10, [])
