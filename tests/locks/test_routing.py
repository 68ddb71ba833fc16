"""Locks are kept where the project's routers keep this app."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.db import connections, router

from cloudrun_jobs.checks import check_lock_server, check_locks, check_record_tables
from cloudrun_jobs.exceptions import LockTablesMissing, RecordTablesMissing
from cloudrun_jobs.locks import LockManager, current
from cloudrun_jobs.locks.database import DatabaseLocks
from cloudrun_jobs.locks.local import LocalLocks
from cloudrun_jobs.models import JobRun, LockSlot
from cloudrun_jobs.runs.database import with_migration_hint
from tests.locks.workers import Workers
from tests.servers.routing import To, ToJobs

SQLITE = "django.db.backends.sqlite3"
ROUTERS = ["tests.servers.routing.ToJobs"]


def configure(settings: Any, *routers: object, **locks: Any) -> None:
    settings.DATABASE_ROUTERS = list(routers)
    settings.CLOUDRUN_JOBS = {"ENVIRONMENT": "staging", "LOCKS": locks}


@pytest.fixture
def jobs(sqlite: str, tmp_path: Path) -> Iterator[str]:
    """Add a database "jobs" that has no tables."""
    connections.settings["jobs"] = {**connections.settings[sqlite], "NAME": str(tmp_path / "jobs")}
    yield "jobs"
    connections["jobs"].close()
    del connections["jobs"], connections.settings["jobs"]


@pytest.mark.parametrize("kind", ["postgres", "mariadb", "sqlite"])
def test_locks_follow_the_router(kind: str, settings: Any, request: pytest.FixtureRequest) -> None:
    """Without `using`, a lock is kept in the database of the app's other tables."""
    alias = request.getfixturevalue(kind)
    configure(settings, To(alias))
    manager = LockManager("routed")
    with manager.lock():
        kept = LockSlot.objects.using(alias).filter(label="routed", expires_us__gt=0)
        assert kept.count() == 1

    assert isinstance(current(), DatabaseLocks)
    current().close()
    connections[alias].close()


def test_a_changed_router_moves_the_locks(settings: Any, sqlite: str, postgres: str) -> None:
    """Each database has a backend of its own."""
    manager = LockManager("moved")
    for alias in (sqlite, postgres, sqlite):
        configure(settings, To(alias))
        assert manager.try_lock()
        assert current().using == alias
        assert manager.release_lock()
        current().close()


def test_using_overrides_the_router(settings: Any, sqlite: str, postgres: str) -> None:
    """The option names a database of the locks alone."""
    configure(settings, To(postgres), OPTIONS={"using": sqlite})

    assert current().using == sqlite


def test_a_router_to_memory_keeps_the_locks_in_memory(settings: Any, jobs: str) -> None:
    """No other process could see them there."""
    connections[jobs].settings_dict["NAME"] = ":memory:"
    configure(settings, ToJobs())

    assert type(current()) is LocalLocks


def test_an_unknown_database_of_a_router_is_reported(settings: Any) -> None:
    """The message names the setting that is wrong."""
    configure(settings, To("nowhere"))

    (error,) = check_locks(None)

    assert error.msg == "DATABASE_ROUTERS: no database 'nowhere'."


def test_an_empty_default_database_is_reported(settings: Any) -> None:
    """Without a router, or with one that names it, no database keeps the locks."""
    connections.settings["empty"] = {**connections.settings["default"], "ENGINE": "django.db.backends.dummy"}
    configure(settings, To("empty"))

    (error,) = check_locks(None)

    assert "DATABASES['empty'] is empty" in error.msg
    assert "DATABASE_ROUTERS" in error.hint
    del connections["empty"], connections.settings["empty"]


def test_missing_tables_are_created_where_the_router_keeps_them(settings: Any, jobs: str) -> None:
    """The advice for records and for locks is the same command, and it helps."""
    backend = "cloudrun_jobs.locks.database.DatabaseLocks"
    configure(settings, ToJobs(), BACKEND=backend)
    command = "Run `manage.py migrate cloudrun_jobs --database jobs`."
    with pytest.raises(LockTablesMissing) as locks:
        LockManager("missing").try_lock()
    with pytest.raises(RecordTablesMissing) as records:
        with_migration_hint(JobRun.objects.first)

    found = [*check_lock_server(None, databases=[jobs]), *check_record_tables(None, databases=[jobs])]

    assert [message.hint for message in found] == [command, command]
    assert [locks.value.hint, records.value.hint] == [command, command]
    assert router.allow_migrate("jobs", "cloudrun_jobs")
    current().close()


def test_advice_does_not_name_a_migration_that_does_nothing(settings: Any, jobs: str, tmp_path: Path) -> None:
    """A router that keeps the app in "jobs" lets no migration create its tables elsewhere."""
    connections.settings["bare"] = {**connections.settings[jobs], "NAME": str(tmp_path / "bare")}
    backend = "cloudrun_jobs.locks.database.DatabaseLocks"
    configure(settings, ToJobs(), BACKEND=backend, OPTIONS={"using": "bare"})

    with pytest.raises(LockTablesMissing) as caught:
        LockManager("elsewhere").try_lock()

    assert "keep this table in the database 'jobs'" in caught.value.hint
    current().close()
    del connections["bare"], connections.settings["bare"]


def test_a_router_that_allows_no_migration_is_named(
    settings: Any, jobs: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tables have to be created somewhere."""
    monkeypatch.setattr(ToJobs, "allow_migrate", lambda *args, **hints: False)
    configure(settings, ToJobs(), BACKEND="cloudrun_jobs.locks.database.DatabaseLocks")

    with pytest.raises(LockTablesMissing, match=r"Let allow_migrate\('jobs', 'cloudrun_jobs'\)"):
        LockManager("nowhere").try_lock()

    current().close()


def test_a_project_without_a_default_database_runs_jobs(no_records: Path, tmp_path: Path) -> None:
    """`DATABASES["default"] = {}` is Django's way to require a router for each app."""
    shutil.copyfile(no_records, tmp_path / "jobs")
    databases = {"default": {}, "jobs": {"ENGINE": SQLITE, "NAME": str(tmp_path / "jobs")}}
    workers = Workers(tmp_path / "history", {}, databases, ROUTERS)
    worker = workers.start("work", "--seconds=0")
    status, output = worker.wait()
    workers.stop()

    assert (status, bool(worker.entry("begin"))) == (0, True), output
