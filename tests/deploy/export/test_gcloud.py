"""The real gcloud creates from an export what the sync would create."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from cloudrun_jobs import Schedule
from cloudrun_jobs.emulator import Emulator
from tests.deploy.commands import Sync
from tests.deploy.export.conftest import Export, declare
from tests.emulator.gcloud_cli import NEEDS_GCLOUD, Gcloud

pytestmark = NEEDS_GCLOUD
ONLY = ("--command", "echo")


def run(script: str, gcloud: Gcloud) -> None:
    """Run the script with the gcloud on PATH."""
    done = subprocess.run(
        ["sh"], input=script, capture_output=True, text=True, timeout=120, env=gcloud.environment()
    )
    assert done.returncode == 0, done.stderr


def drift(sync_jobs: Sync, sync_schedules: Sync) -> list[Any]:
    """Return the plans of both sync commands."""
    return [sync_jobs("--check").lines, sync_schedules("--check", *ONLY).lines]


@pytest.mark.usefixtures("everything")
def test_script_leaves_nothing_to_sync(
    export: Export, gcloud: Gcloud, sync_jobs: Sync, sync_schedules: Sync
) -> None:
    """The script writes every field, the ownership label included."""
    run(export("gcloud", "--image", "app:1", "--no-alerts"), gcloud)

    assert drift(sync_jobs, sync_schedules) == [["= 1 unchanged"], ["= 2 unchanged"]]


@pytest.mark.usefixtures("everything")
def test_script_updates_existing_resources(
    export: Export,
    gcloud: Gcloud,
    emulator: Emulator,
    sync_jobs: Sync,
    sync_schedules: Sync,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Existing jobs and Scheduler jobs get the declared fields; one that was paused by hand stays paused."""
    sync_jobs("--image", "app:0")
    sync_schedules(*ONLY)
    paused, _ = emulator.clients.scheduler.list_jobs(parent="projects/acme/locations/europe-west4")
    emulator.clients.scheduler.pause_job(name=paused.name)
    later = [Schedule("0 10 * * 1-5"), Schedule("every 6 minutes", name="often")]
    declare(monkeypatch, tasks=7, attempt_deadline=40, schedule=later)
    run(export("gcloud", "--image", "app:1", "--no-alerts"), gcloud)

    schedules = "= 2 unchanged, 1 paused by hand (echo [1]; left paused)"
    assert drift(sync_jobs, sync_schedules) == [["= 1 unchanged"], [schedules]]


@pytest.mark.usefixtures("everything")
def test_yaml_leaves_nothing_to_sync(export: Export, gcloud: Gcloud, sync_jobs: Sync, tmp_path: Path) -> None:
    """`gcloud run jobs replace` accepts the YAML, whatever region is configured."""
    path = tmp_path / "job.yaml"
    path.write_text(export("yaml", "--image", "app:1"))
    gcloud("run", "jobs", "replace", str(path))

    assert sync_jobs("--check").lines == ["= 1 unchanged"]


def test_service_and_connector_leave_nothing_to_sync(
    export: Export,
    options: dict[str, Any],
    gcloud: Gcloud,
    sync_jobs: Sync,
    sync_schedules: Sync,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A VPC connector is exported, and a Scheduler job that calls the service's URL with a token for it."""
    options["service_url"] = "https://web.example.com"
    connector = {"connector": "main", "egress": "private-ranges-only"}
    declare(monkeypatch, schedule="0 9 * * *", target="service", vpc=connector)
    run(export("gcloud", "--image", "app:1", "--no-alerts"), gcloud)

    assert drift(sync_jobs, sync_schedules) == [["= 1 unchanged"], ["= 1 unchanged"]]
