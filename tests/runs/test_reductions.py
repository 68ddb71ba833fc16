"""`reduce()` whose process has died: `reconcile` starts an execution that only calls it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from threading import Barrier, Thread
from typing import Any

import grpc
import pytest
from django.db import connections
from google.cloud import run_v2
from pytest_django import Settings

from cloudrun_jobs.backends import current
from cloudrun_jobs.exceptions import JobFailed, JobInterrupted
from cloudrun_jobs.execution.attempt import Attempt
from cloudrun_jobs.models import JobRun, Status, TaskRun
from cloudrun_jobs.models.functions import Now
from cloudrun_jobs.runs import dispatch
from cloudrun_jobs.runs.reconcile import reconcile
from tests.backends.server import CloudRun
from tests.jobs.management.commands import outcome
from tests.runs.conftest import EXECUTION, Container, in_every_database, request, store_records

PLACE = "projects/acme/locations/europe-west4/jobs/outcome-production/executions"
AGES_AGO = timedelta(hours=1)


@pytest.fixture(params=["postgres"], autouse=True)
def database(request: pytest.FixtureRequest, settings: Settings, django_db_blocker: Any) -> Iterator[str]:
    """Store the records in one kind of database, except for tests that need each."""
    yield from store_records(request, settings, django_db_blocker)


class Dying:
    """A run of two tasks, whose process dies in `reduce()`."""

    def __init__(self, cloud: CloudRun, container: Container, monkeypatch: pytest.MonkeyPatch) -> None:
        self.cloud, self.container, self.monkeypatch = cloud, container, monkeypatch
        self.reduce: Callable[[list[Any]], Any] = lambda results: {"of": results}
        self.calls = 0
        monkeypatch.setenv("CLOUD_RUN_JOB", "outcome-production")
        name = f"{PLACE}/{EXECUTION}"
        sent = {"argv": ["outcome", "none"], "environment": "production", "status": Status.SENT}
        self.run = request("outcome", **sent, execution=EXECUTION, execution_name=name, sent_at=Now())

    def task(self, index: int, *, dies: bool = False, result: Any = None) -> int:
        with self.monkeypatch.context() as patch:
            if dies:
                patch.setattr(Attempt, "end", lambda attempt, *args: attempt.heartbeat.stop())
            patch.setattr(outcome.Command, "run", lambda self, **options: result() if callable(result) else index)
            given = {"run_id": str(self.run.pk), "execution": EXECUTION, "count": 2, "attempt": 2}
            return self.container.run("outcome", "none", index=index, **given)

    def die(self) -> None:
        """Run both tasks; the last one dies in reduce()."""
        self.task(0)
        reduce, self.reduce = self.reduce, lambda results: 1 / 0
        self.task(1, dies=True)
        self.reduce, self.calls = reduce, 0
        self.over(succeeded=1)

    def over(self, *, succeeded: int, name: str = EXECUTION) -> None:
        """Make Cloud Run report that the execution ended an hour ago."""
        ended = {"name": f"{PLACE}/{name}", "task_count": 2, "succeeded_count": succeeded}
        self.cloud.execution = run_v2.Execution(**ended, failed_count=2 - succeeded, retried_count=1)
        self.cloud.execution.completion_time = datetime.now(UTC)
        self.age()

    def age(self) -> None:
        past = Now() - AGES_AGO
        JobRun.objects.update(started_at=past, sent_at=past)
        JobRun.objects.exclude(sending_until=None).update(sending_until=past)
        TaskRun.objects.update(heartbeat_at=past)

    def call_reduce(self, **variables: Any) -> int:
        """Run the container that only calls reduce()."""
        self.run.refresh_from_db()
        self.monkeypatch.setenv("CLOUDRUN_JOBS_REDUCE", "1")
        given = {"run_id": str(self.run.pk), "execution": f"outcome-production-{'abcde'}", **variables}
        code = self.container.run("outcome", "none", **given)
        self.monkeypatch.delenv("CLOUDRUN_JOBS_REDUCE")
        self.run.refresh_from_db()
        return code

    def variables(self, number: int = 0) -> dict[str, str]:
        env = self.cloud.requests[number].overrides.container_overrides[0].env
        return {variable.name: variable.value for variable in env}


@pytest.fixture
def dying(cloud: CloudRun, container: Container, monkeypatch: pytest.MonkeyPatch) -> Dying:
    scene = Dying(cloud, container, monkeypatch)

    def reduce(self: outcome.Command, results: list[Any]) -> Any:
        scene.calls += 1
        return scene.reduce(results)

    monkeypatch.setattr(outcome.Command, "reduce", reduce, raising=False)
    return scene


@in_every_database
def test_reconcile_starts_an_execution_that_only_reduces(dying: Dying) -> None:
    """It has one task, which calls reduce() and not run(). The counts are those of the tasks."""
    dying.die()

    assert reconcile(current()) == {"reducing": 1}
    run = JobRun.objects.get()
    assert dying.variables() == {"CLOUDRUN_JOBS_RUN_ID": str(run.pk), "CLOUDRUN_JOBS_REDUCE": "1"}
    assert dying.cloud.requests[0].overrides.task_count == 1
    assert (run.status, run.execution) == (Status.RUNNING, "outcome-production-abcde")
    assert run.tasks_execution_name == f"{PLACE}/{EXECUTION}"

    assert dying.call_reduce() == 0
    run = dying.run
    assert (run.status, run.result, dying.calls) == (Status.SUCCEEDED, {"of": [0, 1]}, 1)
    assert (run.task_count, run.succeeded_count, run.retried_count) == (2, 2, 1)
    assert list(run.tasks.values_list("result", flat=True).order_by("index")) == [0, 1]
    assert run.operation.result() == {"of": [0, 1]}


def test_a_handle_waits_for_the_reduction(dying: Dying) -> None:
    """The execution has ended, and the run has not."""
    operation = dying.run.operation
    dying.die()

    assert operation.done() is False
    assert JobRun.objects.get().status == Status.RUNNING
    reconcile(current())
    dying.call_reduce()
    assert operation.result(timeout=30) == {"of": [0, 1]}
    assert operation.execution_name.endswith("abcde")


@in_every_database
def test_concurrent_reconcilers_start_one(dying: Dying, database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both reconcilers have seen that the execution has ended."""
    dying.die()
    both, results = Barrier(2), []
    awaits = JobRun.awaits_reduction

    def meet(self: JobRun, *args: Any) -> bool:
        found = awaits(self, *args)
        if not getattr(self, "has_met", False):
            self.has_met = True  # type: ignore[attr-defined]
            both.wait(60)
        return found

    monkeypatch.setattr(JobRun, "awaits_reduction", meet)

    def work() -> None:
        try:
            results.extend(reconcile(current()))
        finally:
            connections[database].close()

    threads = [Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    # The later one sees the claim, or the execution that the earlier one has started.
    assert sorted(results) in (["already claimed", "reducing"], ["reducing", "under way"])
    assert len(dying.cloud.requests) == 1


def test_a_request_of_a_reconciler_that_died_is_found(dying: Dying, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its variables distinguish it from the first execution, which has the same run id."""
    dying.cloud.started.append(run_v2.Execution(name=f"{PLACE}/{EXECUTION}", template=carrying(dying.run)))
    dying.die()
    with monkeypatch.context() as broken:
        broken.setattr(dispatch, "record_reduction", lambda *args: None)
        assert reconcile(current()) == {"reducing": 1}
        assert reconcile(current()) == {"already claimed": 1}
    dying.over(succeeded=1)

    assert reconcile(current()) == {"reducing": 1}
    assert len(dying.cloud.requests) == 1
    assert JobRun.objects.get().execution == "outcome-production-abcde"


def carrying(run: JobRun) -> run_v2.TaskTemplate:
    env = [run_v2.EnvVar(name="CLOUDRUN_JOBS_RUN_ID", value=str(run.pk))]
    return run_v2.TaskTemplate(containers=[run_v2.Container(env=env)])


def test_a_container_that_starts_before_its_name_is_recorded(
    dying: Dying, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It claims the run; a second execution for reduce() is superseded."""
    dying.die()
    monkeypatch.setattr(dispatch, "record_reduction", lambda *args: None)
    reconcile(current())

    assert dying.call_reduce(execution="outcome-production-first") == 0
    assert dying.call_reduce(execution="outcome-production-second") == 0
    assert (dying.calls, dying.run.execution) == (1, "outcome-production-first")
    assert (dying.run.status, dying.run.tasks_execution_name) == (Status.SUCCEEDED, f"{PLACE}/{EXECUTION}")


def test_surplus_tasks_do_nothing(dying: Dying, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cloud Run rejects fewer tasks than `task_parallelism`."""
    monkeypatch.setattr(outcome.Command, "tasks", 4, raising=False)
    monkeypatch.setattr(outcome.Command, "task_parallelism", 3, raising=False)
    dying.die()
    reconcile(current())
    assert dying.cloud.requests[0].overrides.task_count == 3

    assert [dying.call_reduce(index=index, count=3) for index in (2, 1)] == [0, 0]
    assert (dying.calls, dying.run.status) == (0, Status.RUNNING)
    assert dying.call_reduce(index=0, count=3) == 0
    assert (dying.calls, dying.run.result) == (1, {"of": [0, 1]})


def test_a_failure_of_the_reducing_execution_ends_the_run(dying: Dying) -> None:
    """Its process may have been killed again: no third execution is started."""
    dying.die()
    reconcile(current())
    dying.over(succeeded=0, name="outcome-production-abcde")

    assert reconcile(current()) == {"failed": 1}
    run = JobRun.objects.get()
    assert (run.reason, run.task_count, run.succeeded_count, run.failed_count) == ("reduce", 2, 2, 0)
    with pytest.raises(JobFailed):
        run.operation.result()
    assert reconcile(current()) == {}


def test_a_retry_of_the_reducing_execution_calls_reduce_again(dying: Dying) -> None:
    """As in the first execution: the run fails with the last attempt."""
    dying.die()
    reconcile(current())
    dying.reduce = lambda results: 1 / 0
    assert dying.call_reduce() == 1
    assert (dying.run.status, dying.run.error_class) == (Status.RUNNING, "ZeroDivisionError")
    dying.reduce = len
    assert dying.call_reduce(attempt=1) == 0
    assert (dying.run.status, dying.run.result, dying.run.error_class) == (Status.SUCCEEDED, 2, "")


def test_the_last_attempt_of_the_reducing_execution_fails_the_run(dying: Dying) -> None:
    dying.die()
    reconcile(current())
    dying.reduce = lambda results: 1 / 0

    assert dying.call_reduce(attempt=2) == 1
    assert (dying.run.status, dying.run.reason) == (Status.FAILED, "reduce")
    assert (dying.run.succeeded_count, dying.run.failed_count) == (2, 0)


def interrupt() -> None:
    raise JobInterrupted("interrupted")


@in_every_database
@pytest.mark.parametrize("partial", [True, False])
def test_a_killed_task_counts_as_failed(dying: Dying, monkeypatch: pytest.MonkeyPatch, partial: bool) -> None:
    """Cloud Run reports the failure: with `reduce_partial`, the task's result is None."""
    monkeypatch.setattr(outcome.Command, "reduce_partial", partial)
    dying.task(0)
    dying.task(1, dies=True, result=interrupt)
    dying.over(succeeded=1)

    assert reconcile(current()) == ({"reducing": 1} if partial else {"failed": 1})
    if partial:
        dying.call_reduce()
    run = JobRun.objects.get()
    assert (run.status, run.failed_count, dying.calls) == (Status.FAILED, 1, int(partial))
    assert (run.reason, run.result) == (("task", {"of": [0, None]}) if partial else ("failed", None))
    assert run.tasks.get(index=1).status == Status.FAILED


@pytest.mark.parametrize("code", [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.NOT_FOUND])
def test_transient_errors_are_retried_and_permanent_ones_end_the_run(dying: Dying, code: grpc.StatusCode) -> None:
    """A transient error is retried after the dispatch lease; a job that is not deployed ends the run."""
    dying.die()
    dying.cloud.errors_of_searches = []
    passes = code == grpc.StatusCode.UNAVAILABLE
    dying.cloud.on_request = lambda: dying.cloud.errors.append((code, "no"))
    assert reconcile(current()) == {"postponed" if passes else "refused": 1}
    assert JobRun.objects.get().status == (Status.RUNNING if passes else Status.FAILED)
    dying.cloud.on_request = bool
    dying.cloud.errors.clear()
    dying.over(succeeded=1)
    assert reconcile(current()) == ({"reducing": 1} if passes else {})


def test_a_cancelled_run_is_not_reduced(dying: Dying) -> None:
    dying.die()
    JobRun.objects.update(cancel_requested_at=Now())

    assert reconcile(current()) == {"cancelled": 1}
    assert (JobRun.objects.get().reason, dying.cloud.requests) == ("cancelled", [])


def test_a_cancellation_before_the_reducing_execution_starts(dying: Dying) -> None:
    """The container does nothing, and the run is cancelled."""
    dying.die()
    reconcile(current())
    JobRun.objects.update(cancel_requested_at=Now())

    assert dying.call_reduce() == 0
    assert (dying.run.status, dying.run.reason, dying.calls) == (Status.CANCELLED, "cancelled", 0)


def test_a_running_reduce_is_left_alone(dying: Dying) -> None:
    """Its execution has not ended."""
    dying.die()
    dying.cloud.execution.completion_time = None

    assert reconcile(current()) == {"under way": 1}
    assert dying.cloud.requests == []


def test_a_deleted_record_is_not_reduced(dying: Dying) -> None:
    """There is nothing to reduce."""
    dying.die()
    run = dying.run
    JobRun.objects.all().delete()
    dying.monkeypatch.setenv("CLOUDRUN_JOBS_REDUCE", "1")

    assert dying.container.run("outcome", "none", run_id=str(run.pk)) == 0
    assert (JobRun.objects.count(), dying.calls) == (0, 0)
