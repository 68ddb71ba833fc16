"""The servers as fixtures: one of each for the whole run, started when first asked for.

`TEST_REDIS_URL` and `TEST_DATABASE_URL` (postgres://user:password@host:port/name) name servers of your own.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from django.core.management import call_command
from django.db import connections

from tests.servers import redis, sql
from tests.servers.process import Server


def add_database(alias: str, settings: dict[str, Any]) -> str:
    """Make a database known to Django, and migrate the app's tables in it.

    Not before the suite's own are made: Django would make one for each alias that it knows by then.
    """
    connections.settings[alias] = {**connections.settings["default"], "TEST": {}, "OPTIONS": {}, **settings}
    with suppress(AttributeError):  # The connection of an earlier server: a module's tests may run in two parts.
        del connections[alias]
    call_command("migrate", "cloudrun_jobs", database=alias, verbosity=0)
    connections[alias].close()
    return alias


@pytest.fixture(scope="session")
def redis_server() -> Iterator[Server]:
    server = redis.start(redis.redis_program())
    yield server
    server.stop()


@pytest.fixture(scope="session")
def redis_url(request: pytest.FixtureRequest) -> str:
    return os.environ.get("TEST_REDIS_URL") or redis.url(request.getfixturevalue("redis_server"))


@pytest.fixture(scope="session")
def valkey_url() -> Iterator[str]:
    server = redis.start(redis.valkey_program())
    yield redis.url(server)
    server.stop()


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Server]:
    server = sql.postgres()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def postgres(request: pytest.FixtureRequest, django_db_setup: None, django_db_blocker: Any) -> str:
    given = os.environ.get("TEST_DATABASE_URL")
    settings = _from_url(given) if given else None
    with django_db_blocker.unblock():
        server = settings or sql.postgres_settings(request.getfixturevalue("postgres_server").port)
        return add_database("postgres", server)


@pytest.fixture(scope="session")
def pgbouncer(postgres: str, postgres_server: Server, django_db_blocker: Any) -> Iterator[str]:
    server = sql.pgbouncer(postgres_server)
    with django_db_blocker.unblock():
        yield add_database(
            "pgbouncer", {**sql.postgres_settings(server.port), "DISABLE_SERVER_SIDE_CURSORS": True}
        )
    server.stop()


@pytest.fixture(scope="session")
def mariadb_server() -> Iterator[Server]:
    server = sql.mariadb()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def mariadb(mariadb_server: Server, django_db_setup: None, django_db_blocker: Any) -> str:
    with django_db_blocker.unblock():
        return add_database("mariadb", sql.mariadb_settings(mariadb_server.port))


@pytest.fixture(scope="session")
def sqlite(tmp_path_factory: pytest.TempPathFactory, django_db_setup: None, django_db_blocker: Any) -> str:
    path: Path = tmp_path_factory.mktemp("sqlite") / "locks.sqlite3"
    with django_db_blocker.unblock():
        return add_database("sqlite", {"ENGINE": "django.db.backends.sqlite3", "NAME": str(path)})


def _from_url(url: str) -> dict[str, Any]:
    parts = urlsplit(url)
    return {
        **sql.postgres_settings(parts.port or 5432),
        "NAME": parts.path.lstrip("/"),
        "USER": unquote(parts.username or ""),
        "PASSWORD": unquote(parts.password or ""),
        "HOST": parts.hostname or "localhost",
    }
