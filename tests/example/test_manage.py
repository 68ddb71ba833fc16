"""The example's manage.py, run as a process."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.example.conftest import THREE_DAYS, Pack

MANAGE = Path(__file__).resolve().parents[2] / "example_project" / "manage.py"
CLOUD = {
    "CLOUDRUN_JOBS_ENVIRONMENT": "production",
    "CLOUDRUN_JOBS_PROJECT": "acme",
    "CLOUDRUN_JOBS_REGION": "asia-northeast1",
    "EXAMPLE_SECRET_KEY": "a long one for the test of the checks: 0123456789 abcdefghijklmnop",
    "EXAMPLE_ALLOWED_HOSTS": "rates.example",
}

Manage = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def manage(tmp_path: Path) -> Manage:
    """Return a function that runs manage.py from another directory, with its own database."""
    prefixes = ("DJANGO_", "EXAMPLE_", "CLOUDRUN_JOBS_")
    environ = {name: value for name, value in os.environ.items() if not name.startswith(prefixes)}
    environ["EXAMPLE_DATABASE"] = str(tmp_path / "example.sqlite3")

    def manage(*argv: object, **variables: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, MANAGE, *map(str, argv)]
        return subprocess.run(
            command, cwd=tmp_path, env=environ | variables, capture_output=True, text=True, check=False
        )

    return manage


def test_collects_twice(manage: Manage, source: Path) -> None:
    """The first collection creates all rates, the second one none."""
    migrated = manage("migrate", "--verbosity=0")
    first, second = (manage("collect_rates", f"--source={source}") for _ in range(2))

    assert (migrated.returncode, migrated.stderr) == (0, "")
    assert first.returncode == second.returncode == 0
    assert "7 rates: 7 new, 0 different.\nDone.\n" in first.stdout
    assert "7 rates: 0 new, 0 different.\nDone.\n" in second.stdout


def test_bad_source_fails_the_process(manage: Manage, pack: Pack) -> None:
    """The process exits 1 and prints one line without a traceback."""
    source = pack(THREE_DAYS.replace("175.92", "many"))
    manage("migrate", "--verbosity=0")
    ended = manage("collect_rates", "--source", source)

    assert ended.returncode == 1
    assert f"CommandError: {source}: eurofxref-hist.csv, line 3: JPY: expected N/A or a number" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_checks_are_clean(manage: Manage) -> None:
    """The settings and the job's declaration cause no warning."""
    checked = manage("check", "--fail-level=WARNING")

    assert checked.returncode == 0, checked.stderr


def test_checks_of_a_deployment_are_clean(manage: Manage) -> None:
    """With the configuration of the cloud, the deployment checks report the example's SQLite, and nothing else."""
    checked = manage("check", "--deploy", "--fail-level=ERROR", **CLOUD)

    assert checked.returncode == 0, checked.stderr
    assert "identified 1 issue" in checked.stderr
    assert "cloudrun_jobs.W024" in checked.stderr


def test_migrations_are_complete(manage: Manage) -> None:
    """The migrations match the models."""
    assert manage("makemigrations", "--check", "--dry-run").returncode == 0


@pytest.mark.parametrize("closing", [{"EXAMPLE_DEBUG": "0"}, {"CLOUDRUN_JOBS_ENVIRONMENT": "production"}])
def test_local_secret_key_is_rejected_outside_debug(manage: Manage, closing: dict[str, str]) -> None:
    """The public key works only on a development machine in DEBUG."""
    result = manage("check", **closing)

    assert result.returncode != 0
    assert "Outside DEBUG the variable EXAMPLE_SECRET_KEY is required." in result.stderr
