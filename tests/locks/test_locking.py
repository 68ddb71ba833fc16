"""What a run does while its locks are held, or their server is unavailable."""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import Any

import pytest
from django.core.management import call_command

from cloudrun_jobs.exceptions import LockMisused, LockTimeout, LockUnavailable
from cloudrun_jobs.locks import acquire, current, names
from cloudrun_jobs.locks.base import Grant, Owner
from cloudrun_jobs.locks.local import LocalLocks
from cloudrun_jobs.locks.requests import TaskRequest
from tests.jobs.management.commands.echo import Command

pytestmark = pytest.mark.django_db

OTHER = Owner(holder="echo-test-other", nonce="other")


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The leases of each call of `run()`."""
    found: list[Any] = []
    monkeypatch.setattr(Command, "run", lambda self, *args, **options: found.append(self._active.leases))
    return found


@pytest.fixture
def held() -> Grant:
    """The lock of the same run, held by another execution."""
    name = names.for_arguments("echo", {})
    grant = current().acquire(name, 1, OTHER, 60)
    assert isinstance(grant, Grant)
    return grant


def declare(monkeypatch: pytest.MonkeyPatch, **attributes: Any) -> None:
    for name, value in attributes.items():
        monkeypatch.setattr(Command, name, value, raising=False)


def test_same_run_is_skipped(ran, held, caplog):
    """The run ends without an error, and the log names the holder."""
    with caplog.at_level(logging.WARNING):
        call_command("echo")

    assert ran == []
    assert "was skipped" in caplog.text
    assert "held by echo-test-other (task 0)" in caplog.text


def test_run_with_other_options_starts(ran, held, monkeypatch):
    """Runs with other options have another lock."""
    declare(monkeypatch, parallelism=2)

    call_command("echo", partner=7)

    assert len(ran) == 1


@pytest.mark.parametrize("declared", [{"overlap": "fail"}, {"overlap": "wait", "lock_timeout": 0}])
def test_same_run_fails(ran, held, monkeypatch, declared):
    """With `overlap` "fail" at once, with "wait" after `lock_timeout`."""
    declare(monkeypatch, **declared)

    with pytest.raises(LockTimeout, match="held by echo-test-other"):
        call_command("echo")

    assert ran == []


def test_same_run_is_allowed(ran, held, monkeypatch):
    """With `overlap` "allow" the run starts."""
    declare(monkeypatch, overlap="allow")

    call_command("echo")

    assert len(ran) == 1


class Unavailable(LocalLocks):
    """A server that does not reply."""

    def acquire(self, *args: Any) -> Any:
        raise LockUnavailable("unavailable in this test")


@pytest.fixture
def unavailable(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.CLOUDRUN_JOBS = {"ENVIRONMENT": "test", "LOCKS": {"BACKEND": f"{__name__}.Unavailable"}}
    monkeypatch.setattr(acquire, "SERVER_OUTAGE_LIMIT", 0)


@pytest.mark.usefixtures("unavailable")
def test_unavailable_server_fails_the_run(ran):
    """By default a run does not start unless its lock is known to be free."""
    with pytest.raises(LockUnavailable, match="unavailable in this test"):
        call_command("echo")

    assert ran == []


@pytest.mark.usefixtures("unavailable")
def test_on_lock_error_run_bypasses_the_locks(ran, monkeypatch, caplog):
    """The run starts, and the log has an error for each lock."""
    declare(monkeypatch, on_lock_error="run")

    call_command("echo")

    assert ran == [()]
    errors = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert [record.action for record in errors] == ["lock_bypassed"] * 2
    assert "runs without its lock echo" in errors[0].getMessage()


@pytest.mark.usefixtures("unavailable")
def test_lease_without_locks_raises(monkeypatch):
    """`lease` raises `LockMisused`; `check_lease()` has nothing to check."""
    declare(monkeypatch, on_lock_error="run")
    monkeypatch.setattr(Command, "run", lambda self, *args, **options: self.check_lease() or self.lease)

    with pytest.raises(LockMisused, match="holds no lock"):
        call_command("echo")


@pytest.mark.parametrize(("declared", "seconds"), [({}, 120), ({"lock_lease": timedelta(minutes=5)}, 300)])
def test_lock_lease_reaches_the_server(monkeypatch, declared, seconds):
    """Both locks are leased for `lock_lease`, or for the lock backend's `lease`."""
    leased: list[float] = []
    declare(monkeypatch, **declared)

    def run(self: Command, *args: Any, **options: Any) -> None:
        leased.extend((held.until - held.since).total_seconds() for held in current().holders("crj1:"))

    monkeypatch.setattr(Command, "run", run)

    call_command("echo")

    assert [round(one) for one in leased] == [seconds, seconds]


@pytest.mark.parametrize(("lease", "own", "shared"), [(None, 120, 600), (300, 300, 600), (900, 900, 900)])
def test_tasks_keep_their_shared_slot_for_five_default_leases(lease, own, shared):
    """The slot outlives gaps between tasks, and a task's own lease when that is longer."""
    name = names.lock_name(f"grace {lease}")
    request = TaskRequest(current(), name, 1, Owner(holder="execution", nonce="nonce"), lease, 3)

    assert request.acquire() is None
    assert [seconds for _, seconds in request.renewals()] == [own, shared]


def test_on_lock_error_does_not_concern_held_locks(ran, held, monkeypatch):
    """A job that may run without its locks is skipped while another execution holds them."""
    declare(monkeypatch, on_lock_error="run")

    call_command("echo")

    assert ran == []
