"""The pytest fixture `cloudrun_emulator`: tasks have the databases of the test, or the test is refused."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from django.db import connection, connections
from django.test.testcases import _DatabaseFailure
from pytest_django import Settings

from cloudrun_jobs import environ
from cloudrun_jobs.emulator import Emulator
from cloudrun_jobs.models import JobRun
from cloudrun_jobs.testing.emulator import cloudrun_emulator, cloudrun_emulator_options, task_databases
from tests.emulator.cloud import Cloud, job
from tests.jobs.management.commands import echo

__all__ = ["cloudrun_emulator", "cloudrun_emulator_options"]

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def developers(migrated: Path, tmp_path: Path) -> Path:
    """Return the database that the settings of the tasks name."""
    path = tmp_path / "developers.sqlite3"
    path.write_bytes(migrated.read_bytes())
    return path


@pytest.fixture
def _deployed(cloudrun_emulator: Emulator, settings: Settings, developers: Path) -> None:
    place = {"PROJECT": "acme", "REGION": "europe-west4"}
    options = {"endpoint": cloudrun_emulator.grpc, "runs_per_minute": 10_000}
    settings.CLOUDRUN_JOBS = {"ENVIRONMENT": "production", **place, "OPTIONS": options}
    variables = {
        "PYTHONPATH": str(ROOT),
        "DJANGO_SETTINGS_MODULE": "tests.settings",
        "TESTS_DATABASE": str(developers),
        "CLOUDRUN_JOBS_ENVIRONMENT": "production",
    }
    declared = job(sys.executable, "-m", "django", env=variables)
    Cloud(cloudrun_emulator).create(declared, "echo-production")


@pytest.mark.django_db
@pytest.mark.usefixtures("_deployed")
def test_a_task_has_the_tests_database(developers: Path) -> None:
    """It reads and writes what the test does, and leaves the developer's own data alone."""
    operation = echo.Command().delay(partner=7)

    assert operation.result(timeout=60)["partner"] == 7
    assert operation.run.tasks.get().exit_code == 0
    with closing(sqlite3.connect(developers)) as own:
        assert own.execute("select count(*) from cloudrun_jobs_jobrun").fetchone() == (0,)


def test_the_settings_of_a_task(transactional_db: None) -> None:
    """They name every database of the test, a file by its full path."""
    found = task_databases()

    assert set(found) >= {"default"}
    assert set(found["default"]) == {"ENGINE", "NAME", "USER", "PASSWORD", "HOST", "PORT"}
    assert Path(found["default"]["NAME"]).is_absolute()


def test_a_transaction_is_refused(db: None) -> None:
    """Tasks do not see what is not committed."""
    with pytest.raises(pytest.fail.Exception, match=r"transaction of the database 'default'.*transaction=True"):
        task_databases()


@pytest.mark.parametrize("name", [":memory:", "file:memorydb_default?mode=memory&cache=shared"])
def test_a_database_in_memory_is_refused(
    transactional_db: None, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Tasks are processes of their own."""
    with monkeypatch.context() as patch:  # Until Django connects again.
        patch.setitem(connection.settings_dict, "NAME", name)
        with pytest.raises(pytest.fail.Exception, match=r"is in memory.*DATABASES\['default'\]\['TEST'\]"):
            task_databases()


def test_pytest_django_is_required(tmp_path: Path) -> None:
    """Without it there is no test database."""
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['pytest_django'] = None\n")
    (tmp_path / "test_it.py").write_text("def test_it(cloudrun_emulator): pass\n")
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    plugins = ["-p", "no:django", "-p", "cloudrun_jobs.testing.emulator", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *plugins, "test_it.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONPATH": f"{tmp_path}:{ROOT}"},
        capture_output=True,
        text=True,
        check=False,
    )

    assert "The fixture cloudrun_emulator needs pytest-django" in done.stdout


@pytest.fixture
def _declared(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Keep the databases of this process."""
    declared = {**connections.settings}
    yield
    for alias in set(connections.settings) - set(declared):
        del connections.settings[alias]
    connections.settings.update(declared)


SQLITE, POSTGRESQL = "django.db.backends.sqlite3", "django.db.backends.postgresql"
VALUES = {"USER": "", "PASSWORD": "", "HOST": "", "PORT": ""}


@pytest.mark.usefixtures("_declared")
def test_a_database_that_the_test_may_not_use(transactional_db: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not a test database, so the tasks get none."""
    connections.settings["other"] = {**connections.settings["default"], "NAME": "developers"}
    monkeypatch.setattr(connections["other"], "connect", _DatabaseFailure(None, "not allowed"))

    assert task_databases()["other"] == {**VALUES, "ENGINE": "django.db.backends.dummy", "NAME": ""}


@pytest.mark.usefixtures("_declared")
@pytest.mark.parametrize("on_emulator", [True, False])
def test_databases_are_replaced_on_the_emulator_only(monkeypatch: pytest.MonkeyPatch, on_emulator: bool) -> None:
    """Options stay if they are for the same engine; an unknown database is added."""
    connections.settings["other"] = {**connections.settings["default"], "OPTIONS": {"timeout": 7}}
    given = {
        "other": {**VALUES, "ENGINE": SQLITE, "NAME": "test"},
        "more": {**VALUES, "ENGINE": POSTGRESQL, "NAME": "test_more", "HOST": "db"},
    }
    monkeypatch.setenv("CLOUDRUN_EMULATOR_DATABASES", json.dumps(given))
    monkeypatch.delenv("CLOUDRUN_EMULATOR_HOST", raising=False)
    if on_emulator:
        monkeypatch.setenv("CLOUDRUN_EMULATOR_HOST", "127.0.0.1:8491")
    environ.use_test_databases()

    if on_emulator:
        other, more = connections["other"], connections["more"]
        assert (other.settings_dict["NAME"], other.settings_dict["OPTIONS"]) == ("test", {"timeout": 7})
        assert (more.vendor, more.settings_dict["HOST"], more.settings_dict["OPTIONS"]) == ("postgresql", "db", {})
    else:
        assert "more" not in connections.settings
        assert connections.settings["other"]["NAME"] != "test"


def test_nothing_is_replaced_without_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    """A task of an emulator that no test started has the databases of its settings."""
    monkeypatch.setenv("CLOUDRUN_EMULATOR_HOST", "127.0.0.1:8491")
    before = dict(connections.settings)
    environ.use_test_databases()

    assert connections.settings == before
    assert JobRun.objects.count() == 0
