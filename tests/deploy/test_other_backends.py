"""The sync commands and the export leave out the jobs that queue workers run and `celery beat` starts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from pytest_django import Settings

from tests.deploy.commands import REGION, Sync
from tests.deploy.export.conftest import Export, export
from tests.jobs.management.commands import echo, nightly

__all__ = ["export"]

Move = Callable[[], None]


@pytest.fixture
def move(settings: Settings, options: dict[str, Any]) -> Move:
    """Return a function that moves two jobs to Celery by a setting."""

    def move() -> None:
        settings.CLOUDRUN_JOBS = {
            **settings.CLOUDRUN_JOBS,
            "BACKENDS": {"workers": {"BACKEND": "cloudrun_jobs.backends.celery.CeleryBackend"}},
            "ROUTES": {"echo": "workers", "night*": "workers"},
        }

    return move


def test_moved_job_leaves_an_orphan(sync_jobs: Sync, move: Move) -> None:
    """The plan says where the job runs now, and --prune deletes its Cloud Run Job."""
    sync_jobs("--image", "app:1")
    move()
    planned, kept, pruned, again = (sync_jobs(*args) for args in (["--check"], [], ["--prune"], ["--check"]))

    reason = "echo runs on the backend 'workers'"
    assert planned.lines == [
        f"- echo-production  ({reason}; will be deleted with --prune)",
        "= 0 unchanged, 1 left out (echo on 'workers')",
    ]
    assert (planned.status, kept.lines, pruned.lines[0]) == (
        1,
        planned.lines,
        f"- echo-production  ({reason}; deleted)",
    )
    assert (again.status, again.lines) == (0, ["= 0 unchanged, 1 left out (echo on 'workers')"])


def test_moved_schedule_leaves_an_orphan(sync_schedules: Sync, move: Move) -> None:
    """Until it is deleted, both services send the ticks."""
    sync_schedules()
    move()
    planned, data = sync_schedules("--dry-run"), sync_schedules("--json", "--prune").data

    assert planned.lines == [
        "- nightly-production  (nightly runs on the backend 'workers'; will be deleted with --prune)",
        "= 0 unchanged, 1 left out (nightly on 'workers')",
    ]
    assert (data["orphans"], data["other_backends"]) == (["nightly-production"], {"nightly": "workers"})
    assert sync_schedules("--check").status == 0


def test_job_that_returns_is_created_again(
    sync_schedules: Sync, move: Move, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The declaration of the class takes precedence over the routes."""
    move()
    monkeypatch.setattr(nightly.Command, "backend", "default", raising=False)

    assert sync_schedules("--dry-run").lines[0].startswith("+ nightly  0 3 * * *")


def test_scheduler_job_of_the_web_service_stays(
    sync_schedules: Sync, options: dict[str, Any], move: Move, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cloud Scheduler calls the service, which sends the run to the queue, and need not wait for its end."""
    options["service_url"] = "https://web.example"
    monkeypatch.setattr(nightly.Command, "target", "service", raising=False)
    sync_schedules()
    move()

    synced = sync_schedules("--dry-run")

    assert synced.lines == ["~ nightly  attempt_deadline: 600s → none", "= 0 unchanged"]


def test_export_leaves_it_out(export: Export, move: Move, monkeypatch: pytest.MonkeyPatch) -> None:
    """The document has neither its Cloud Run Job nor its Scheduler job."""
    monkeypatch.setattr(echo.Command, "schedule", "0 9 * * *", raising=False)
    before = export("gcloud", "--command", "echo", "--image", "app:1")
    move()
    after = export("gcloud", "--command", "echo", "--image", "app:1")

    assert "echo-production" in str(before)
    assert "echo-production" not in str(after)


def test_default_backend_may_be_a_queue(sync_jobs: Sync, settings: Settings, move: Move) -> None:
    """The jobs that are routed to Cloud Run are deployed there."""
    settings.CLOUDRUN_JOBS = {
        "ENVIRONMENT": "production",
        "PROJECT": "acme",
        "REGION": REGION,
        "BACKEND": "cloudrun_jobs.backends.celery.CeleryBackend",
        "BACKENDS": {
            "cloud": {
                "BACKEND": "cloudrun_jobs.backends.cloudrun.CloudRunBackend",
                "OPTIONS": settings.CLOUDRUN_JOBS["OPTIONS"],
            }
        },
        "ROUTES": {"echo": "cloud"},
    }
    synced = sync_jobs("--image", "app:1", commands=("--command", "echo", "nightly"))

    assert synced.lines == ["+ echo  app:1", "= 0 unchanged, 1 left out (nightly on 'default')"]
