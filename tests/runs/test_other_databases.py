"""A request follows the transaction in which it is made, whichever database that transaction is in."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from datetime import timedelta
from pathlib import Path
from threading import Event
from typing import Any

import grpc
import pytest
from django.db import OperationalError, connections, transaction
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st

from cloudrun_jobs import InvalidArguments, JobFailed
from cloudrun_jobs.backends import current
from cloudrun_jobs.backends.cloudrun import CloudRunBackend
from cloudrun_jobs.exceptions import CloudRunJobsError
from cloudrun_jobs.models import JobRun, Status
from cloudrun_jobs.runs import database as records
from cloudrun_jobs.runs.reconcile import reconcile
from cloudrun_jobs.runs.requester import requested_by
from tests.backends.server import CloudRun
from tests.jobs.management.commands import echo

ORDERS, BILLING = "orders", "billing"
UNAVAILABLE = (grpc.StatusCode.UNAVAILABLE, "try again")
LONG_AGO = "2026-01-01T00:00:00Z"


class RollBack(Exception):
    """Makes a block roll back."""


@pytest.fixture(autouse=True)
def _others(database: str, tmp_path: Path) -> Iterator[None]:
    """Add two databases that have no records."""
    for alias in (ORDERS, BILLING):
        settings = {"ENGINE": "django.db.backends.sqlite3", "NAME": str(tmp_path / alias), "OPTIONS": {}}
        connections.settings[alias] = {**connections.settings["default"], "TEST": {}, **settings}
    yield
    for alias in (ORDERS, BILLING):
        with suppress(OperationalError):
            connections[alias].close()
        del connections[alias], connections.settings[alias]


def sent(cloud: CloudRun) -> list[int]:
    """Return the option of each request."""
    return [int(request.overrides.container_overrides[0].args[1].rpartition("=")[2]) for request in cloud.requests]


def recorded() -> list[int]:
    """Return the option of each run that is recorded as sent, in the order of the options."""
    runs = JobRun.objects.filter(status=Status.SENT)
    return sorted(int(run.argv[1].rpartition("=")[2]) for run in runs)


def test_a_request_is_sent_after_the_commit_of_another_database(cloud: CloudRun) -> None:
    """Before the commit there is no record; then the run has what the caller gave it."""
    with requested_by("ada"), transaction.atomic(using=ORDERS):
        operation = echo.Command().delay(partner=1)

        assert (cloud.requests, JobRun.objects.count()) == ([], 0)
        assert (operation.execution_name, operation.done()) == ("", False)
    assert (sent(cloud), recorded()) == ([1], [1])
    assert (operation.run.requested_by, operation.run.trigger) == ("ada", "delay")
    assert operation.execution_name.endswith("/executions/echo-production-abcde")


def test_a_rollback_of_another_database_drops_the_request(cloud: CloudRun) -> None:
    """There is neither a record nor a request, nor anything to reconcile later."""
    with suppress(RollBack), transaction.atomic(using=ORDERS):
        operation = echo.Command().delay(partner=1)
        raise RollBack

    assert (cloud.requests, JobRun.objects.count(), reconcile(current())) == ([], 0, {})
    with pytest.raises(JobFailed, match=r"has no record.*rolled back"):
        operation.result()


def test_a_request_in_both_databases_is_part_of_the_records_transaction(cloud: CloudRun, database: str) -> None:
    """The record is written in the transaction of its own database, whatever else is open."""
    with transaction.atomic(using=ORDERS), transaction.atomic(using=BILLING):
        with suppress(RollBack), transaction.atomic(using=database):
            echo.Command().delay(partner=1)
            raise RollBack
        with transaction.atomic(using=database):
            operation = echo.Command().delay(partner=2)
            assert operation.run.status == Status.PENDING
        assert sent(cloud) == [2]


@pytest.mark.parametrize("inline", [False, True])
def test_a_request_cannot_follow_two_transactions(
    cloud: CloudRun, database: str, inline: bool, settings: Any
) -> None:
    """It is refused in every environment, with the databases and the way out."""
    if inline:
        settings.CLOUDRUN_JOBS = {"ENVIRONMENT": "test"}
    with (
        transaction.atomic(using=ORDERS),
        transaction.atomic(using=BILLING),
        pytest.raises(CloudRunJobsError, match=rf"'billing' and 'orders' are open.*using='{database}'"),
    ):
        echo.Command().delay(partner=1)

    assert (cloud.requests, JobRun.objects.count()) == ([], 0)


def test_a_transaction_without_atomic_cannot_be_followed(cloud: CloudRun) -> None:
    """Django does not know when it is committed."""
    connections[ORDERS].set_autocommit(False)
    with pytest.raises(transaction.TransactionManagementError):
        echo.Command().delay(partner=1)
    connections[ORDERS].set_autocommit(True)

    assert (cloud.requests, JobRun.objects.count()) == ([], 0)


def test_an_inline_run_is_immediate(settings: Any) -> None:
    """Inline there is nothing to send."""
    settings.CLOUDRUN_JOBS = {"ENVIRONMENT": "test"}
    with transaction.atomic(using=ORDERS):
        assert echo.Command().delay(partner=1).run.status == Status.SUCCEEDED


def test_a_reservation_follows_the_transaction(cloud: CloudRun, monkeypatch: pytest.MonkeyPatch) -> None:
    """As delay() does."""
    made: list[str] = []

    def reserve(self: object, request: Any, *args: object, **kwargs: object) -> str:
        made.append(request.run_id)
        return "key"

    monkeypatch.setattr(CloudRunBackend, "check_reserve", lambda self: None)
    monkeypatch.setattr(CloudRunBackend, "reserve", reserve)
    with transaction.atomic(using=ORDERS):
        operation = echo.Command().reserve(timedelta(hours=1))
        assert (made, JobRun.objects.count()) == ([], 0)
        with suppress(RollBack), transaction.atomic(using=ORDERS):
            echo.Command().reserve(timedelta(hours=2))
            raise RollBack

    assert made == [operation.run_id]
    assert (operation.run.schedule, operation.run.trigger) == ("key", "reserve")


def test_waiting_and_cancelling_are_refused_before_the_commit(cloud: CloudRun) -> None:
    """Neither is possible: the run is not recorded yet."""
    with transaction.atomic(using=ORDERS):
        operation = echo.Command().delay(partner=1)
        for call in (operation.result, operation.exception, operation.cancel):
            with pytest.raises(CloudRunJobsError, match="its request is sent once"):
                call()

    assert operation.run.status == Status.SENT


@pytest.mark.parametrize("other", [True, False])
def test_another_thread_waits_for_the_commit(cloud: CloudRun, database: str, other: bool) -> None:
    """It sees no record before the commit, which does not mean that there will be none."""
    cloud.execution.succeeded_count = 1
    cloud.execution.completion_time = "2026-01-01T00:00:00Z"
    ended = Event()
    with transaction.atomic(using=ORDERS if other else database):
        operation = echo.Command().delay(partner=1)
        operation.add_done_callback(lambda ended_operation: ended.set())
        time.sleep(0.5)
        assert not ended.is_set()

    assert ended.wait(10)
    assert operation.run.status == Status.SUCCEEDED


def test_a_key_is_looked_up_at_once(cloud: CloudRun) -> None:
    """An earlier run is returned, and other arguments are refused, where the request is made."""
    earlier = echo.Command().delay(partner=1, idempotency_key="once")
    with transaction.atomic(using=ORDERS):
        assert echo.Command().delay(partner=1, idempotency_key="once").run_id == earlier.run_id
        with pytest.raises(InvalidArguments, match="other arguments"):
            echo.Command().delay(partner=2, idempotency_key="once")

    assert sent(cloud) == [1]


def test_a_key_is_looked_up_again_after_the_commit(cloud: CloudRun) -> None:
    """Of two requests with one key one is sent, and both handles are those of its run."""
    with transaction.atomic(using=ORDERS):
        first, second = (echo.Command().delay(partner=1, idempotency_key="once") for _ in range(2))
        assert first.run_id != second.run_id

    assert (sent(cloud), first.run, second.run_id) == ([1], JobRun.objects.get(), first.run_id)


def test_a_key_of_a_failed_dispatch_is_sent_again(cloud: CloudRun) -> None:
    """As outside a transaction."""
    cloud.errors = [(grpc.StatusCode.PERMISSION_DENIED, "no")]
    with suppress(CloudRunJobsError):
        echo.Command().delay(partner=1, idempotency_key="once")
    with transaction.atomic(using=ORDERS):
        operation = echo.Command().delay(partner=1, idempotency_key="once")

    assert (len(cloud.requests), operation.run.status, JobRun.objects.count()) == (2, Status.SENT, 1)


def test_a_transient_failure_after_the_commit_postpones(cloud: CloudRun) -> None:
    """The run is recorded by then, so the reconciler sends it."""
    cloud.errors = [UNAVAILABLE] * 20
    with transaction.atomic(using=ORDERS):
        operation = echo.Command().delay(partner=1)
    assert operation.run.status == Status.PENDING
    JobRun.objects.update(sending_until=LONG_AGO)
    cloud.errors = []

    assert reconcile(current()) == {"sent": 1}


@pytest.mark.parametrize("is_written", [False, True])
@pytest.mark.parametrize("key", [None, "once"])
def test_the_record_is_written_when_its_database_is_back(
    cloud: CloudRun, monkeypatch: pytest.MonkeyPatch, is_written: bool, key: str | None
) -> None:
    """The caller cannot repeat a committed request, so a passing error or a lost reply does not lose it."""
    insert, errors = records.insert, [OperationalError("gone")] * 2

    def fail(*args: Any, **kwargs: Any) -> None:
        if is_written or not errors:
            insert(*args, **kwargs)
        if errors:
            raise errors.pop()

    with transaction.atomic(using=ORDERS):
        echo.Command().delay(partner=1, idempotency_key=key)
        monkeypatch.setattr(records, "insert", fail)

    assert (sent(cloud), recorded()) == ([1], [1])


def test_a_request_that_cannot_be_recorded_is_logged(
    cloud: CloudRun, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The caller's other callbacks run."""

    def fail(*args: Any, **kwargs: Any) -> None:
        raise CloudRunJobsError("gone")

    called: list[bool] = []
    with transaction.atomic(using=ORDERS):
        echo.Command().delay(partner=1)
        transaction.on_commit(lambda: called.append(True), using=ORDERS)
        monkeypatch.setattr(records, "insert", fail)

    assert (called, cloud.requests) == ([True], [])
    assert [(record.levelname, record.__dict__["action"]) for record in caplog.records] == [
        ("ERROR", "dispatch_failed")
    ]


@pytest.mark.parametrize("commits", [True, False])
def test_a_transaction_of_the_records_that_ends_later_is_followed_too(
    cloud: CloudRun, database: str, commits: bool
) -> None:
    """Blocks need not be nested: the record may become part of a transaction that began meanwhile."""
    with suppress(RollBack), ExitStack() as first, ExitStack() as second:
        first.enter_context(transaction.atomic(using=ORDERS))
        echo.Command().delay(partner=1)
        second.enter_context(transaction.atomic(using=database))
        first.close()
        assert cloud.requests == []
        if not commits:
            raise RollBack

    assert (sent(cloud), recorded()) == (([1], [1]) if commits else ([], []))


aliases = st.sampled_from(["records", ORDERS, BILLING])
requests = st.just(None)
blocks = st.recursive(
    requests,
    lambda inner: st.tuples(aliases, st.booleans(), st.lists(inner, max_size=3)),
    max_leaves=6,
)


def make(
    tree: Any, database: str, opened: list[tuple[str, list[bool]]], made: dict[int, list[list[bool]]]
) -> None:
    """Make the requests of the tree; note for each the blocks that must commit."""
    if tree is None:
        number = len(made)
        inside = {alias for alias, _ in opened}
        followed = database if database in inside else next(iter(inside), None)
        made[number] = [fate for alias, fate in opened if alias == followed]
        if len(inside) > 1 and database not in inside:
            made[number] = [[False]]
            with pytest.raises(CloudRunJobsError, match="a run can follow only one"):
                echo.Command().delay(partner=number)
        else:
            echo.Command().delay(partner=number)
        return
    alias, commits, inner = tree
    alias = database if alias == "records" else alias
    with suppress(RollBack), transaction.atomic(using=alias):
        for each in inner:
            make(each, database, [*opened, (alias, [commits])], made)
        if not commits:
            raise RollBack


@examples(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(trees=st.lists(blocks, min_size=1, max_size=3))
def test_what_is_sent_is_what_its_transaction_committed(cloud: CloudRun, database: str, trees: list[Any]) -> None:
    """In any nesting of blocks a request is sent once if every block that it follows commits, else never."""
    cloud.requests.clear()
    JobRun.objects.all().delete()
    made: dict[int, list[list[bool]]] = {}
    for tree in trees:
        make(tree, database, [], made)

    expected = [number for number, blocks in made.items() if all(all(fate) for fate in blocks)]
    assert sorted(sent(cloud)) == recorded() == expected
    assert JobRun.objects.count() == len(expected)
