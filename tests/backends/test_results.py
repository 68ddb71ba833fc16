"""The result of an execution that succeeded: what its job recorded, or an error if it recorded none."""

from __future__ import annotations

from threading import Event
from typing import Any

import pytest
from django.db import connection
from google.cloud import run_v2

from cloudrun_jobs import Operation, ResultUnavailable
from cloudrun_jobs.backends import current
from cloudrun_jobs.models import JobRun
from cloudrun_jobs.models.functions import Now
from cloudrun_jobs.runs.reconcile import reconcile
from tests.backends.server import CloudRun
from tests.jobs.management.commands import echo

ENDED = "2026-01-02T00:00:00Z"
LONG_AGO = "2026-01-01T00:00:00Z"

# What the job has recorded when Cloud Run reports that its execution succeeded.
UNRECORDED: dict[str, dict[str, Any]] = {
    "nothing": {},
    "nothing, nor did the sender": {"status": "pending", "execution": None},
    "its start": {"status": "running"},
    "that it was lost": {"status": "lost", "reason": "process_died"},
}
RECORDED: dict[str, dict[str, Any]] = {
    "no value": {"status": "succeeded", "result": None},
    "a false value": {"status": "succeeded", "result": 0},
    "an empty list": {"status": "succeeded", "result": []},
    "a skipped run": {"status": "skipped", "reason": "lock_held"},
    "a tick that was used": {"status": "skipped", "reason": "same_tick"},
}


@pytest.fixture(params=[1, 3])
def operation(cloud_run: CloudRun, request: pytest.FixtureRequest) -> Operation:
    """Return the handle on an execution whose tasks have succeeded."""
    count = request.param
    cloud_run.execution = run_v2.Execution(task_count=count, succeeded_count=count, completion_time=ENDED)
    return echo.Command().delay()


@pytest.mark.parametrize("recorded", UNRECORDED.values(), ids=UNRECORDED)
def test_a_result_that_was_not_recorded(operation: Operation, recorded: dict[str, Any]) -> None:
    """The error names the execution and the database; the run has succeeded all the same."""
    JobRun.objects.update(**recorded)
    with pytest.raises(
        ResultUnavailable, match=r"echo-production-abcde: the execution succeeded.*'default' \(sqlite"
    ):
        operation.result()

    assert isinstance(operation.exception(), ResultUnavailable)
    assert (operation.done(), operation.cancelled()) == (True, False)
    if recorded.get("status") != "pending":  # The sender may still record that it sent the run.
        assert (operation.run.status, operation.run.reason) == ("succeeded", "not_recorded")
        assert isinstance(operation.run.operation.exception(), ResultUnavailable)


@pytest.mark.parametrize("recorded", RECORDED.values(), ids=RECORDED)
def test_a_result_that_was_recorded(operation: Operation, recorded: dict[str, Any]) -> None:
    """Whatever the job returned is its result."""
    JobRun.objects.update(**recorded)

    assert operation.result() == recorded.get("result")


def test_a_deleted_record(operation: Operation) -> None:
    """There is no result any more."""
    JobRun.objects.all().delete()

    assert isinstance(operation.exception(), ResultUnavailable)


def test_a_callback_gets_the_error(operation: Operation) -> None:
    """It is called, and the handle has the error."""
    ended = Event()
    operation.add_done_callback(lambda _: ended.set())

    assert ended.wait(10)
    assert isinstance(operation.exception(), ResultUnavailable)


def test_a_run_that_was_reconciled_before(operation: Operation, cloud_run: CloudRun) -> None:
    """The reconciler records that the result is missing, for those that ask later."""
    JobRun.objects.update(sent_at=LONG_AGO)
    assert reconcile(current()) == {"succeeded": 1}
    cloud_run.execution = run_v2.Execution()

    assert isinstance(operation.exception(), ResultUnavailable)


def test_a_task_that_did_not_record_its_end(operation: Operation) -> None:
    """The results of the other tasks are on the record, not those of the run."""
    JobRun.objects.update(status="running", task_count=2, started_at=Now())
    operation.run.tasks.create(index=0, worker=operation.run_id, status="succeeded", exit_code=0, result=7)

    assert isinstance(operation.exception(), ResultUnavailable)
    assert operation.run.tasks.get().result == 7


@pytest.mark.parametrize(
    ("values", "described"),
    [
        ({"NAME": "app", "HOST": "db.acme.test", "PORT": 5433}, " app db.acme.test:5433"),
        ({"NAME": "app", "HOST": "", "PORT": ""}, " app"),
        ({"NAME": "", "OPTIONS": {"service": "app", "password": "s3cret"}}, ""),
        ({"NAME": "postgres://me:s3cret@db.acme.test/app"}, ""),
        ({"NAME": "dbname=app password=s3cret", "HOST": "db"}, " db"),
        ({"NAME": "app", "HOST": "me:s3cret@db.acme.test"}, " app db.acme.test"),
    ],
)
def test_no_password_is_named(
    operation: Operation, monkeypatch: pytest.MonkeyPatch, values: dict[str, Any], described: str
) -> None:
    """The database is described without what may be confidential."""
    with monkeypatch.context() as patch:  # Until Django connects again.
        for key, value in {"PASSWORD": "s3cret", "USER": "me", "HOST": "", "PORT": "", **values}.items():
            patch.setitem(connection.settings_dict, key, value)
        message = str(operation.exception())

    assert f"({connection.vendor}{described})" in message
    assert "s3cret" not in message
