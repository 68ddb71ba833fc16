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
from cloudrun_jobs.locks.base import Grant, Holder, LockBackend, Owner
from cloudrun_jobs.locks.database import DatabaseLocks
from cloudrun_jobs.locks.keeper import LeaseKeeper
from cloudrun_jobs.locks.local import LocalLocks
from cloudrun_jobs.locks.names import LockName
from cloudrun_jobs.locks.redis import RedisLocks
from cloudrun_jobs.locks.timer import timer
from tests.locks.workers import Workers, database_settings
from tests.servers.fixtures import add_database

JOB_LEASE = 2.0  # Seconds, of jobs in processes of their own.
KINDS = ("redis", "valkey", "postgres", "pgbouncer", "mariadb", "sqlite", "local")
SETTINGS = Settings(environment="production")


def path_and_options(kind: str, request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    """Return the values of LOCKS for this kind of server."""
    if kind == "local":
        return "cloudrun_jobs.locks.local.LocalLocks", {}
    if kind in {"redis", "valkey"}:
        return "cloudrun_jobs.locks.redis.RedisLocks", {"url": request.getfixturevalue(f"{kind}_url")}
    return "cloudrun_jobs.locks.database.DatabaseLocks", {"using": request.getfixturevalue(kind)}


def build(kind: str, request: pytest.FixtureRequest, **options: Any) -> LockBackend:
    """Build the backend of this kind."""
    classes: dict[str, type[LockBackend]] = {
        "cloudrun_jobs.locks.local.LocalLocks": LocalLocks,
        "cloudrun_jobs.locks.redis.RedisLocks": RedisLocks,
    }
    path, given = path_and_options(kind, request)
    return classes.get(path, DatabaseLocks)(SETTINGS, **given, **options)


def workers_for(kind: str, request: pytest.FixtureRequest, tmp_path: Path, **options: Any) -> Workers:
    """Return workers that keep their locks there, and their records there too or in a file."""
    path, given = path_and_options(kind, request)
    if "using" in given:
        database = database_settings(given.pop("using"))
    else:
        database = {"ENGINE": "django.db.backends.sqlite3", "NAME": str(tmp_path / "db")}
        shutil.copyfile(request.getfixturevalue("no_records"), database["NAME"])
    locks = {"BACKEND": path, "OPTIONS": {**given, "lease": JOB_LEASE, **options}}
    return Workers(tmp_path / "history", locks, {"default": database})


@pytest.fixture
def kind() -> str:
    """The kind of lock server, unless the test names another."""
    return "postgres"


@pytest.fixture
def own_option(request: pytest.FixtureRequest) -> str:
    """An option that no other test gives: the servers outlive a test."""
    return f"--shop={request.node.name}"


@pytest.fixture(scope="session")
def no_records(tmp_path_factory: pytest.TempPathFactory, django_db_setup: None, django_db_blocker: Any) -> Path:
    """Return an SQLite database with the app's tables, to be copied."""
    path = tmp_path_factory.mktemp("no_records") / "db"
    with django_db_blocker.unblock():
        add_database("no_records", {"ENGINE": "django.db.backends.sqlite3", "NAME": str(path)})
    return path


@dataclass
class LockServer:
    """Access to the workers' locks from this process: starting another takes seconds."""

    backend: LockBackend

    def lock_of(self, token: int) -> LockName:
        # By its token: the server still has leases of other tests' killed executions.
        holder = self._holder(token)
        return LockName(key=holder.lock, label=holder.label)

    def take_away(self, token: int) -> None:
        holder = self._holder(token)
        assert self.backend.release_slot(holder.lock, holder.slot, holder.token)

    def _holder(self, token: int) -> Holder:
        return next(holder for holder in self.backend.holders("crj1:") if holder.token == token)

    def refuses(self, lock: LockName) -> bool:
        """Return True if another execution cannot acquire the lock."""
        return not isinstance(self.backend.acquire(lock, 1, Owner(holder="another", nonce="another"), 1), Grant)


@pytest.fixture
def lock_server(kind: str, request: pytest.FixtureRequest) -> Iterator[LockServer]:
    backend = build(kind, request)
    yield LockServer(backend)
    backend.close()


@pytest.fixture
def workers(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Workers]:
    found = workers_for(kind, request, tmp_path)
    yield found
    found.stop()


@pytest.fixture(autouse=True)
def _records() -> None:
    """Replace the fixture that rolls records back."""


@pytest.fixture(autouse=True)
def _open_database(django_db_blocker: Any) -> Iterator[None]:
    """Allow database access without a transaction: locks use connections of their own."""
    with django_db_blocker.unblock():
        yield
        _release_all()


def _release_all() -> None:
    """Release the leases that a test left, which would be renewed for ever."""
    for keeper in list(timer._watched):
        with contextlib.suppress(LockError):
            if isinstance(keeper, LeaseKeeper):
                keeper.release()


@pytest.fixture(params=KINDS)
def locks(request: pytest.FixtureRequest) -> Iterator[LockBackend]:
    backend = build(request.param, request, lease=1)
    yield backend
    backend.close()
