"""Status transitions."""

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

# The transitions of a finished run: a failed attempt is retried, or a lost container reports its outcome.
REOPENINGS = {(Status.FAILED, Status.RUNNING)} | {
    (Status.LOST, to) for to in (Status.RUNNING, Status.SUCCEEDED, Status.FAILED, Status.CANCELLED, Status.SKIPPED)
}
ANALYZE = {
    "postgresql": "ANALYZE cloudrun_jobs_jobrun",
    "mysql": "ANALYZE TABLE cloudrun_jobs_jobrun",
    "sqlite": "ANALYZE cloudrun_jobs_jobrun",
}
TRANSITIONS = list(product(Status, Status))


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
@pytest.mark.parametrize(("source", "to"), TRANSITIONS)
def test_every_transition_is_allowed_or_refused(source: Status, to: Status) -> None:
    """An allowed transition changes row and object, a forbidden one neither."""
    run = request(status=source)
    allowed = source in ALLOWED_SOURCES[to]

    assert run.transition(to, reason="test") is allowed
    assert (run.status, run.reason) == ((to, "test") if allowed else (source, ""))
    stored = JobRun.objects.get()
    assert (stored.status, stored.reason) == (run.status, run.reason)


def test_a_transition_uses_the_primary_key() -> None:
    """The query plan does not use the index on the status, which may have many dead entries."""
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


def test_final_statuses_are_final() -> None:
    """Only documented transitions leave a final status."""
    assert {
        (source, to) for source, to in TRANSITIONS if source in FINISHED and source in ALLOWED_SOURCES[to]
    } == REOPENINGS


def test_nothing_goes_back_to_pending() -> None:
    """A dispatched run cannot become pending."""
    assert ALLOWED_SOURCES[Status.PENDING] == ()
    assert set(ALLOWED_SOURCES[Status.SENT]) == {Status.PENDING}
    assert set(Status) == FINISHED | UNFINISHED


@given(moves=st.lists(st.tuples(st.sampled_from(Status), st.sampled_from([0, 1])), max_size=12))
def test_any_transitions_by_two_processes(moves: list[tuple[Status, int]]) -> None:
    """The row decides about transitions, not stale objects."""
    run = request()
    objects = [run, JobRun.objects.get(pk=run.pk)]
    status = Status.PENDING
    for to, which in moves:
        allowed = status in ALLOWED_SOURCES[to]
        status = to if allowed else status

        assert objects[which].transition(to) is allowed
        assert JobRun.objects.get(pk=run.pk).status == status


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
@pytest.mark.parametrize("status", [Status.SUCCEEDED, Status.CANCELLED, Status.FAILED, Status.SKIPPED])
@pytest.mark.parametrize("seen", ["succeeded", "failed", "cancelled", "lost"])
def test_the_services_state_does_not_override_the_container(status: Status, seen: str) -> None:
    """apply_state() does not change a finished run."""
    run = request(status=status)

    assert run.apply_state(ExecutionState(status=seen), run.execution) is False
    run.refresh_from_db()
    assert run.status == status


def test_the_state_of_a_running_execution_changes_nothing() -> None:
    """apply_state() ignores a state without a status."""
    run = request(status=Status.RUNNING)

    assert run.apply_state(ExecutionState(status=None), run.execution) is False
    run.refresh_from_db()
    assert (run.status, run.finished_at) == (Status.RUNNING, None)
