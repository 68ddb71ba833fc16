"""Fixtures: an emulator, and a job that declares everything, with text that every format must quote."""

from __future__ import annotations

from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command
from pytest_django import Settings

from cloudrun_jobs import Schedule
from cloudrun_jobs.emulator import Emulator
from tests.deploy.conftest import _only_these_jobs, emulator, options, sync_jobs, sync_schedules
from tests.emulator.fixtures import cloudrun_emulator, cloudrun_emulator_options
from tests.emulator.gcloud_cli import Gcloud
from tests.jobs.management.commands import echo

__all__ = [
    "_only_these_jobs",
    "cloudrun_emulator",
    "cloudrun_emulator_options",
    "emulator",
    "options",
    "sync_jobs",
    "sync_schedules",
]

Export = Callable[..., str]
JOBS = "app-jobs@acme.iam.gserviceaccount.com"
# Text with a meaning in a shell, YAML, Terraform or gcloud.
ODD = (
    'it\'s "$HOME" `id` ${var.x} %{if} $${x} %%{y} $$${z} \\ ^:^a,b\n'
    "- x: {y}\n#END_OF_JOB\nEND_OF_JOB\n\t日本 🎉 \x85\x7f\u2028 "
)
EVERYTHING: dict[str, Any] = {
    "entrypoint": ["/app/run", "--quiet"],
    "args": {"note": ODD},
    "timeout": 60,
    "max_retries": 2,
    "tasks": 5,
    "task_parallelism": 3,
    "cpu": 0.5,
    "memory": "1024Mi",
    "service_account": JOBS,
    "env_vars": {"ODD": ODD, "EMPTY": "", "NO": "no", "NUMBER": "1e3", "NULL": "null", "TILDE": "~", "DASH": "-"},
    "secrets": {"KEY": "partner-key", "OLD": "partner-key:3"},
    "vpc": {"network": "default", "subnetwork": "jobs", "tags": ["a", "b"], "egress": "all-traffic"},
    "cloud_sql": ["acme:europe-west4:main", "acme:europe-west4:logs"],
    "labels": {"team": "billing", "on": "1", "empty": ""},
    "schedule": [
        Schedule("0 9 * * 1-5", args={"note": ODD}),
        Schedule("every 5 minutes", args={"partner": 7}, time_zone="Asia/Seoul", name="often"),
    ],
    "attempt_deadline": 30,
    "retry_config": {
        "retry_count": 3,
        "max_doublings": 2,
        "max_retry_duration": 600,
        "min_backoff_duration": 10,
        "max_backoff_duration": 100,
    },
}


def declare(monkeypatch: pytest.MonkeyPatch, **declared: Any) -> None:
    for name, value in declared.items():
        monkeypatch.setattr(echo.Command, name, value, raising=False)


@pytest.fixture
def everything(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the job `echo` declare everything."""
    declare(monkeypatch, **EVERYTHING)


@pytest.fixture
def export(options: dict[str, Any], _only_these_jobs: None) -> Export:
    """Call `cloudrun_jobs export` for `echo`, or for `commands`; return its output."""

    def call(form: str, *args: str, commands: tuple[str, ...] = ("--command", "echo")) -> str:
        stdout = StringIO()
        arguments = ("export", "--format", form, *args, *commands)
        call_command("cloudrun_jobs", *arguments, stdout=stdout, stderr=StringIO(), skip_checks=True)
        return stdout.getvalue()

    return call


@pytest.fixture
def celery(settings: Settings, options: dict[str, Any]) -> None:
    """Configure a Celery backend, with variables and an account for all containers."""
    entry = {
        "BACKEND": "cloudrun_jobs.backends.celery.CeleryBackend",
        "OPTIONS": {"app": "example.celery_app.app", "queues": ["ingest", "backtest"]},
    }
    defaults = {"image": "app:1", "service_account": JOBS, "secrets": {"DATABASE_URL": "database-url:2"}}
    settings.CLOUDRUN_JOBS = {**settings.CLOUDRUN_JOBS, "BACKENDS": {"celery": entry}, "DEFAULTS": defaults}


@pytest.fixture
def gcloud(emulator: Emulator, tmp_path: Path) -> Gcloud:
    return Gcloud(emulator.http, tmp_path)
