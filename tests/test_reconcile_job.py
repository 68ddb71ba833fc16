"""The job that reconciles the runs, declared by the settings."""

from __future__ import annotations

import pytest
from pytest_django import Settings

from cloudrun_jobs.exceptions import InvalidJob, InvalidSettings
from cloudrun_jobs.management.commands.reconcile_cloudrun_runs import Command
from cloudrun_jobs.models import JobRun, Status
from cloudrun_jobs.registry import find_jobs
from cloudrun_jobs.runs import reconcile


def test_reconcile_job_is_disabled_by_default() -> None:
    """A project without RECONCILE does not have the job."""
    assert "reconcile_cloudrun_runs" not in find_jobs().jobs


def test_settings_declare_the_reconcile_job(settings: Settings) -> None:
    """RECONCILE wins over the job's own declarations."""
    settings.CLOUDRUN_JOBS = {"ENVIRONMENT": "test", "RECONCILE": {"schedule": "*/5 * * * *", "max_retries": 1}}
    spec = find_jobs().jobs["reconcile_cloudrun_runs"].spec

    assert ([schedule.cron for schedule in spec.schedules], spec.max_retries) == (["*/5 * * * *"], 1)
    assert spec.timeout.total_seconds() == 300


def test_unknown_declaration_is_refused(settings: Settings) -> None:
    """The error names the setting and suggests a name."""
    settings.CLOUDRUN_JOBS = {"ENVIRONMENT": "test", "RECONCILE": {"shedule": "*/5 * * * *"}}

    with pytest.raises(InvalidSettings, match=r"RECONCILE.*shedule.*Did you mean 'schedule'"):
        Command().spec  # noqa: B018


def test_invalid_declaration_is_reported_with_its_setting(settings: Settings) -> None:
    """The hint names RECONCILE."""
    settings.CLOUDRUN_JOBS = {"ENVIRONMENT": "test", "RECONCILE": {"tasks": 0}}

    with pytest.raises(InvalidJob, match=r"tasks: .*It is from CLOUDRUN_JOBS\['RECONCILE'\]\."):
        Command().spec  # noqa: B018


def test_reconcile_job_ends_dead_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run whose process died is lost; the reconciler's own is not."""
    monkeypatch.setattr(reconcile, "LIVENESS_GRACE_SECONDS", 0)
    died = JobRun.objects.create(command="echo", environment="test", trigger="manual", status=Status.RUNNING)
    JobRun.objects.update(started_at="2026-01-01T00:00:00Z")

    assert Command().delay().result() == {"lost": 1}
    died.refresh_from_db()
    assert (died.status, died.reason) == (Status.LOST, "process_died")
