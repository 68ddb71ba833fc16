"""The job that reconciles runs, as the settings declare it."""

from __future__ import annotations

import pytest
from pytest_django import Settings

from cloudrun_jobs.exceptions import InvalidSettings
from cloudrun_jobs.management.commands.reconcile_cloudrun_runs import Command
from cloudrun_jobs.models import JobRun, Status
from cloudrun_jobs.registry import find_jobs
from cloudrun_jobs.runs import reconcile


def test_the_job_is_disabled_by_default() -> None:
    """Without RECONCILE in the settings, the job is not found."""
    assert "reconcile_cloudrun_runs" not in find_jobs().jobs


def test_the_settings_declare_its_schedule(settings: Settings) -> None:
    """RECONCILE overrides the declarations of the job."""
    settings.CLOUDRUN_JOBS = {"ENVIRONMENT": "test", "RECONCILE": {"schedule": "*/5 * * * *", "max_retries": 1}}
    spec = find_jobs().jobs["reconcile_cloudrun_runs"].spec

    assert ([schedule.cron for schedule in spec.schedules], spec.max_retries) == (["*/5 * * * *"], 1)
    assert spec.timeout.total_seconds() == 300


def test_an_unknown_declaration_is_refused(settings: Settings) -> None:
    """The error names the settings key and suggests a similar declaration."""
    settings.CLOUDRUN_JOBS = {"ENVIRONMENT": "test", "RECONCILE": {"shedule": "*/5 * * * *"}}

    with pytest.raises(InvalidSettings, match=r"RECONCILE.*shedule.*Did you mean 'schedule'"):
        Command().spec  # noqa: B018


def test_dead_runs_are_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run whose process died is marked as lost; the reconciler's own run is not."""
    monkeypatch.setattr(reconcile, "LIVENESS_GRACE_SECONDS", 0)
    died = JobRun.objects.create(command="echo", environment="test", trigger="manual", status=Status.RUNNING)
    JobRun.objects.update(started_at="2026-01-01T00:00:00Z")

    assert Command().delay().result() == {"lost": 1}
    died.refresh_from_db()
    assert (died.status, died.reason) == (Status.LOST, "process_died")
