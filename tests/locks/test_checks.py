"""The system checks of locks, and the subcommands `locks` and `unlock`."""

from __future__ import annotations

import json
import re
from unittest import mock
from uuid import uuid4

import pytest
from django.core.management import CommandError, call_command
from django.db import connections

from cloudrun_jobs.checks import check_lock_server, check_locks, check_reach_of_locks
from cloudrun_jobs.locks import LockManager, current
from cloudrun_jobs.locks.database import DatabaseLocks
from cloudrun_jobs.locks.local import LocalLocks
from tests.locks.conftest import path_and_options

REDIS = "cloudrun_jobs.locks.redis.RedisLocks"


def configure(settings, environment="staging", **locks):
    settings.CLOUDRUN_JOBS = {"ENVIRONMENT": environment, "LOCKS": locks}


def test_test_environment_keeps_locks_in_memory():
    """A TestCase is one transaction, and many tests have no database."""
    assert type(current()) is LocalLocks
    assert check_locks(None) == []


def test_database_in_memory_keeps_locks_in_memory(settings, monkeypatch):
    """A deployment check reports it in other environments than `local`."""
    monkeypatch.setitem(connections["default"].settings_dict, "NAME", ":memory:")
    configure(settings, "local")
    assert type(current()) is LocalLocks
    assert check_reach_of_locks(None) == []

    configure(settings, "staging")

    assert [message.id for message in check_reach_of_locks(None)] == ["cloudrun_jobs.E021"]


def test_default_backend_is_the_default_database(settings, monkeypatch):
    """No setting is required."""
    configure(settings)
    monkeypatch.setattr(connections["default"], "is_in_memory_db", lambda: False, raising=False)

    assert type(current()) is DatabaseLocks


@pytest.mark.parametrize(
    ("locks", "message"),
    [
        ({"BACKEN": "x"}, "unknown key 'BACKEN'"),
        ({"BACKEND": "cloudrun_jobs.locks.nowhere.Locks"}, "nowhere"),
        ({"BACKEND": "cloudrun_jobs.conf.Settings"}, "not a subclass of LockBackend"),
        ({"BACKEND": 3}, "LOCKS"),
        ({"BACKEND": REDIS, "OPTIONS": {"url": "redis://x", "lese": 3}}, "has no option 'lese'"),
        ({"BACKEND": REDIS, "OPTIONS": {}}, "url"),
        ({"BACKEND": REDIS, "OPTIONS": {"url": "http://x"}}, "url"),
        ({"BACKEND": REDIS, "OPTIONS": {"url": None}}, "url"),
        ({"BACKEND": REDIS, "OPTIONS": {"url": "redis://x", "lease": 0}}, "lease of 1 to 3600"),
        (
            {"OPTIONS": {"using": "elsewhere"}, "BACKEND": "cloudrun_jobs.locks.database.DatabaseLocks"},
            "elsewhere",
        ),
        ({"OPTIONS": []}, "expected a dictionary"),
    ],
)
def test_invalid_settings_are_reported(settings, locks, message):
    """The system check reports them."""
    configure(settings, **locks)

    (error,) = check_locks(None)

    assert error.id == "cloudrun_jobs.E020"
    assert message in error.msg


def test_only_check_database_connects_to_the_server(settings, redis_url):
    """`check` sends no request; `check --database` reports what it finds."""
    configure(settings, BACKEND=REDIS, OPTIONS={"url": "redis://127.0.0.1:1/0"})
    assert check_lock_server(None) == []

    assert [message.id for message in check_lock_server(None, databases=["default"])] == ["cloudrun_jobs.W022"]

    configure(settings, BACKEND=REDIS, OPTIONS={"url": redis_url})
    assert check_lock_server(None, databases=["default"]) == []


@pytest.fixture(params=["redis", "sqlite", "local"])
def held(request, settings):
    """The manager of a held lock."""
    path, options = path_and_options(request.param, request)
    configure(settings, "test", BACKEND=path, OPTIONS=options)
    manager = LockManager(f"subcommand {uuid4()}")
    manager.await_lock()
    return manager


def test_locks_lists_the_holders(held, capsys):
    """A table, or JSON with `--json`."""
    call_command("cloudrun_jobs", "locks")
    table = capsys.readouterr().out
    call_command("cloudrun_jobs", "locks", "--json")
    found = json.loads(capsys.readouterr().out)

    (holder,) = [one for one in found if one["label"] == held.name]
    assert holder["holder"].startswith("local:")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:.]+Z", holder["until"])
    assert re.search(rf"{held.name} +0 +{holder['token']}", table)
    assert holder["holder"] in table


def test_unlock_refuses_a_live_lease_and_frees_it_by_force(held, capsys):
    """Who frees the lock of a job that runs has to say so."""
    with pytest.raises(CommandError, match=r"is held by local:.*Add --force"):
        call_command("cloudrun_jobs", "unlock", held.name)
    assert held.holders()

    call_command("cloudrun_jobs", "unlock", held.name, "--force")

    assert not held.holders()
    assert "released" in capsys.readouterr().out
    call_command("cloudrun_jobs", "unlock", held.name)
    assert "not held" in capsys.readouterr().out


def test_unlock_leaves_the_next_holder(held):
    """The lock gets another holder while the command releases what it has listed."""
    release_slot = type(current()).release_slot

    def late(self, lock, slot, token):
        held.release_lock()
        held.await_lock()
        return release_slot(self, lock, slot, token)

    with (
        mock.patch.object(type(current()), "release_slot", late),
        pytest.raises(CommandError, match=f"A holder of {held.name} has released it, or has changed"),
    ):
        call_command("cloudrun_jobs", "unlock", held.name, "--force")

    assert held.holders()


def test_unlock_refuses_unknown_names(held, capsys):
    """The error suggests a known lock. A free lock, and that of a job, is no error."""
    with pytest.raises(CommandError, match=f"There is no lock '{held.name}s'. Did you mean '{held.name}'"):
        call_command("cloudrun_jobs", "unlock", f"{held.name}s")

    with pytest.raises(CommandError, match=r"There is no lock 'nosuch'\. `manage\.py cloudrun_jobs locks`"):
        call_command("cloudrun_jobs", "unlock", "nosuch")

    held.release_lock()
    call_command("cloudrun_jobs", "unlock", held.name)
    call_command("cloudrun_jobs", "unlock", "echo")
    assert capsys.readouterr().out == f"{held.name}: not held.\necho: not held.\n"


def test_unavailable_server_is_a_command_error(settings):
    """The error has one line and a non-zero status."""
    configure(settings, BACKEND=REDIS, OPTIONS={"url": "redis://127.0.0.1:1/0"})

    with pytest.raises(CommandError, match=r"Redis at .* failed"):
        call_command("cloudrun_jobs", "locks")
