"""Errors for missing tables and a missing installed app."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.jobs.management.commands import echo

ROOT = Path(__file__).parents[2]


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TESTS_DATABASE", str(tmp_path / "empty.sqlite3"))
    monkeypatch.setenv("DJANGO_SETTINGS_MODULE", "tests.settings")


@pytest.mark.parametrize(
    ("argv", "status"),
    [
        (["echo"], 75),
        (["cloudrun_jobs", "runs"], 1),
        (["cloudrun_jobs", "stats"], 1),
        (["cloudrun_jobs", "reconcile"], 1),
        (["cloudrun_jobs", "reservations"], 1),
        (["cloudrun_jobs", "prune"], 1),
    ],
)
def test_commands_report_missing_tables(empty: None, argv: list[str], status: int) -> None:
    """The commands fail with one line that names `migrate`."""
    done = subprocess.run(
        [sys.executable, "-m", "django", *argv], cwd=ROOT, capture_output=True, text=True, check=False
    )

    assert (done.returncode, "Traceback" in done.stderr) == (status, False)
    assert "manage.py migrate cloudrun_jobs" in done.stderr


def test_the_database_check_reports_missing_tables(empty: None) -> None:
    """`check --database` reports missing tables."""
    check = [sys.executable, "-m", "django", "check", "--database=default"]
    done = subprocess.run(check, cwd=ROOT, capture_output=True, text=True, check=True)

    assert "W023) The database 'default' has no tables for the run records" in done.stderr
    assert "Run `manage.py migrate cloudrun_jobs --database default`." in done.stderr


def test_delay_reports_missing_tables(empty: None) -> None:
    """delay() raises an error that names `migrate`."""
    script = f"import django; django.setup(); from {echo.__name__} import Command; Command().delay()"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)

    assert "RecordTablesMissing" in done.stderr
    assert "manage.py migrate cloudrun_jobs" in done.stderr


def test_missing_installed_app_is_reported() -> None:
    """The error names INSTALLED_APPS instead of an unknown model."""
    script = "from django.conf import settings; settings.configure(); import django; django.setup();"
    script += "from cloudrun_jobs import CloudRunJobs"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)

    assert "InvalidSettings: 'cloudrun_jobs' is not in INSTALLED_APPS. Add it and run `manage.py" in done.stderr
