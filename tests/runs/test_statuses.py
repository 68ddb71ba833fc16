"""A run goes from status to status as allowed, whoever moves it and whatever they believe."""

from __future__ import annotations

import re
from itertools import product

import pytest
from django.db import connections
from django.test.utils import CaptureQueriesContext
from hypothesis import given
from hypothesis import strategies as st

from cloudrun_jobs.models import JobRun, Status
from cloudrun_jobs.models.statuses import ALLOWED_SOURCES, FINISHED, UNFINISHED
from cloudrun_jobs.operations import ExecutionState
from cloudrun_jobs.runs import database
from tests.runs.conftest import request

# What may still change once a run has ended: a failed attempt is tried again, a lost container turns up.
REVIVALS = {(Status.FAILED, Status.RUNNING)} | {
    (Status.LOST, to) for to in (Status.RUNNING, Status.SUCCEEDED, Status.FAILED, Status.CANCELLED, Status.SKIPPED)
}
ANALYZE = {
    "postgresql": "ANALYZE cloudrun_jobs_jobrun",
    "mysql": "ANALYZE TABLE cloudrun_jobs_jobrun",
    "sqlite": "ANALYZE cloudrun_jobs_jobrun",
}
MOVES = list(product(Status, Status))


@pytest.mark.parametrize(("source", "to"), MOVES)
def test_every_move_is_allowed_or_refused(source: Status, to: Status) -> None:
    """The row moves if it may; if not, neither the row nor the object says that it did."""
    run = request(status=source)
    allowed = source in ALLOWED_SOURCES[to]

    assert run.transition(to, reason="told") is allowed
    assert (run.status, run.reason) == ((to, "told") if allowed else (source, ""))
    stored = JobRun.objects.get()
    assert (stored.status, stored.reason) == (run.status, run.reason)


def test_a_run_is_looked_for_by_its_id() -> None:
    """Not by the status it leaves, of which an index may have many dead entries."""
    JobRun.objects.bulk_create(JobRun(command="echo", status=Status.SUCCEEDED) for _ in range(2_000))
    connection = connections[database.database_alias()]
    with CaptureQueriesContext(connection) as captured:
        assert request().transition(Status.SENT)

    with connection.cursor() as cursor:
        cursor.execute(ANALYZE[connection.vendor])
        cursor.execute(f"{connection.ops.explain_query_prefix()} {captured[-1]['sql']}")
        assert not re.search(
            r"(using (index )?|, ')cloudrun_jobs_run_status", str(cursor.fetchall()), re.IGNORECASE
        )


def test_what_has_ended_stays_ended() -> None:
    """But for the moves that are documented."""
    assert {
        (source, to) for source, to in MOVES if source in FINISHED and source in ALLOWED_SOURCES[to]
    } == REVIVALS


def test_nothing_goes_back_to_pending() -> None:
    """What was sent is not sent again."""
    assert ALLOWED_SOURCES[Status.PENDING] == ()
    assert set(ALLOWED_SOURCES[Status.SENT]) == {Status.PENDING}
    assert set(Status) == FINISHED | UNFINISHED


@given(moves=st.lists(st.tuples(st.sampled_from(Status), st.sampled_from([0, 1])), max_size=12))
def test_any_sequence_of_moves_by_two_processes(moves: list[tuple[Status, int]]) -> None:
    """Two objects for one row, each with what it last saw: the row obeys the rules, not their beliefs."""
    run = request()
    objects = [run, JobRun.objects.get(pk=run.pk)]
    status = Status.PENDING
    for to, which in moves:
        allowed = status in ALLOWED_SOURCES[to]
        status = to if allowed else status

        assert objects[which].transition(to) is allowed
        assert JobRun.objects.get(pk=run.pk).status == status


@pytest.mark.parametrize("status", [Status.SUCCEEDED, Status.CANCELLED, Status.FAILED, Status.SKIPPED])
@pytest.mark.parametrize("seen", ["succeeded", "failed", "cancelled", "lost"])
def test_what_a_service_says_does_not_overrule_the_container(status: Status, seen: str) -> None:
    """A run that ended by itself is not settled from outside."""
    run = request(status=status)

    assert run.apply_state(ExecutionState(status=seen), run.execution) is False
    run.refresh_from_db()
    assert run.status == status


def test_an_execution_that_goes_on_settles_nothing() -> None:
    """An observation without an end changes nothing."""
    run = request(status=Status.RUNNING)

    assert run.apply_state(ExecutionState(status=None), run.execution) is False
    run.refresh_from_db()
    assert (run.status, run.finished_at) == (Status.RUNNING, None)
