"""The backends under test: one parameter for each server that keeps locks."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from cloudrun_jobs.conf import Settings
from cloudrun_jobs.exceptions import LockError
from cloudrun_jobs.locks.base import Grant, LockBackend, Owner
from cloudrun_jobs.locks.database import DatabaseLocks
from cloudrun_jobs.locks.local import LocalLocks
from cloudrun_jobs.locks.names import LockName
from cloudrun_jobs.locks.redis import RedisLocks
from cloudrun_jobs.locks.timer import timer
from tests.locks.workers import Journal, database_settings
from tests.servers.fixtures import add_database

JOB_LEASE = 2.0  # Of jobs in processes of their own.
KINDS = ("redis", "valkey", "postgres", "pgbouncer", "mariadb", "sqlite", "local")
SETTINGS = Settings(environment="production")


def path_and_options(kind: str, request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    """Return what `LOCKS` of the settings says for this kind of server."""
    if kind == "local":
        return "cloudrun_jobs.locks.local.LocalLocks", {}
    if kind in {"redis", "valkey"}:
        return "cloudrun_jobs.locks.redis.RedisLocks", {"url": request.getfixturevalue(f"{kind}_url")}
    return "cloudrun_jobs.locks.database.DatabaseLocks", {"using": request.getfixturevalue(kind)}


def build(kind: str, request: pytest.FixtureRequest, **options: Any) -> LockBackend:
    """Build the backend of this kind."""
    classes = {
        "cloudrun_jobs.locks.local.LocalLocks": LocalLocks,
        "cloudrun_jobs.locks.redis.RedisLocks": RedisLocks,
    }
    path, given = path_and_options(kind, request)
    return classes.get(path, DatabaseLocks)(SETTINGS, **given, **options)


def journal_for(kind: str, request: pytest.FixtureRequest, tmp_path: Path, **options: Any) -> Journal:
    """Return a journal of workers that keep their locks there, and their records there too or in a file."""
    path, given = path_and_options(kind, request)
    if "using" in given:
        database = database_settings(given.pop("using"))
    else:
        database = {"ENGINE": "django.db.backends.sqlite3", "NAME": str(tmp_path / "db")}
        shutil.copyfile(request.getfixturevalue("no_records"), database["NAME"])
    locks = {"BACKEND": path, "OPTIONS": {**given, "lease": JOB_LEASE, **options}}
    return Journal(tmp_path / "journal", locks, {"default": database})


@pytest.fixture
def kind() -> str:
    """What keeps the locks, unless the test says otherwise: what does by default."""
    return "postgres"


@pytest.fixture
def shop(request: pytest.FixtureRequest) -> str:
    """A name for the work of one test alone: the servers outlive it."""
    return f"--shop={request.node.name}"


@pytest.fixture(scope="session")
def no_records(tmp_path_factory: pytest.TempPathFactory, django_db_setup: None, django_db_blocker: Any) -> Path:
    """Return an SQLite database with the app's tables, to be copied."""
    path = tmp_path_factory.mktemp("no_records") / "db"
    with django_db_blocker.unblock():
        add_database("no_records", {"ENGINE": "django.db.backends.sqlite3", "NAME": str(path)})
    return path


@dataclass
class Keeper:
    """Reaches the workers' locks from here, without the seconds that starting a process takes."""

    backend: LockBackend

    def lock_of(self, token: int) -> LockName:
        # By its token: the server still holds leases of other tests' executions, which were killed.
        holder = next(holder for holder in self.backend.holders("crj1:") if holder.token == token)
        return LockName(key=holder.lock, label=holder.label)

    def free(self, token: int) -> None:
        assert self.backend.force_release(self.lock_of(token).key)

    def refuses(self, lock: LockName) -> bool:
        """Say whether another execution would not get the lock."""
        return not isinstance(self.backend.acquire(lock, 1, Owner(holder="another", nonce="another"), 1), Grant)


@pytest.fixture
def keeper(kind: str, request: pytest.FixtureRequest) -> Iterator[Keeper]:
    backend = build(kind, request)
    yield Keeper(backend)
    backend.close()


@pytest.fixture
def journal(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Journal]:
    found = journal_for(kind, request, tmp_path)
    yield found
    found.stop()


@pytest.fixture(autouse=True)
def _records() -> None:
    """Nothing here is rolled back."""


@pytest.fixture(autouse=True)
def _open_database(django_db_blocker: Any) -> Iterator[None]:
    """Locks use connections of their own, so no test of theirs can be undone by a rollback."""
    with django_db_blocker.unblock():
        yield
        _release_what_is_held()


def _release_what_is_held() -> None:
    """A lease that a test leaves would go on being renewed."""
    for lease in list(timer._watched):
        with contextlib.suppress(LockError):
            lease.release()


@pytest.fixture(params=KINDS)
def locks(request: pytest.FixtureRequest) -> Iterator[LockBackend]:
    backend = build(request.param, request, lease=1)
    yield backend
    backend.close()
