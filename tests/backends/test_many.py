"""`delay_many()`: one request, and one execution, for many calls of a job."""

from __future__ import annotations

from typing import Any

import pytest
from django.core.management import call_command
from django.db import transaction
from google.cloud import run_v2
from pytest_django import Settings

from cloudrun_jobs import SecretRef, backends
from cloudrun_jobs.exceptions import InvalidArguments, JobCancelled, JobFailed
from cloudrun_jobs.locks import current, names
from cloudrun_jobs.locks.base import Grant, Owner
from cloudrun_jobs.models import JobRun, Status, TaskRun
from cloudrun_jobs.models.functions import Now
from cloudrun_jobs.runs.reconcile import reconcile
from tests.backends.server import CloudRun
from tests.jobs.management.commands import echo, outcome

pytestmark = pytest.mark.django_db(transaction=True)

PARTNERS = [{"partner": 7}, {"partner": 8, "note": "-x y"}, {"words": ["a", "--", "b"][:1]}]
ARGUMENTS = [["echo", "--partner=7"], ["echo", "--partner=8", "--note=-x y"], ["echo", "--", "a"]]


def sent(cloud_run: CloudRun) -> tuple[list[str], dict[str, str], int]:
    """Return the arguments, the variables and the number of tasks of the only request."""
    [request] = cloud_run.requests
    [container] = request.overrides.container_overrides
    variables = {variable.name: variable.value for variable in container.env}
    return list(container.args), variables, request.overrides.task_count


def test_one_request_is_sent(cloud_run: CloudRun) -> None:
    """The arguments are in the records of the tasks."""
    operation = echo.Command().delay_many(PARTNERS)
    arguments, variables, tasks = sent(cloud_run)

    assert (arguments, tasks) == (["echo"], 3)
    assert variables == {"CLOUDRUN_JOBS_RUN_ID": operation.run_id, "CLOUDRUN_JOBS_ELEMENTS": "3"}
    run = JobRun.objects.get()
    assert (run.argv, run.elements, run.overrides) == (["echo"], 3, {"tasks": 3})
    assert [task.argv for task in run.tasks.order_by("index")] == ARGUMENTS
    assert {task.status for task in run.tasks.all()} == {"pending"}


def test_other_overrides_apply(cloud_run: CloudRun) -> None:
    echo.Command().using(timeout=900, env={"SHOP": "7"}).delay_many(PARTNERS)

    assert sent(cloud_run)[1]["SHOP"] == "7"
    assert JobRun.objects.get().overrides == {"tasks": 3, "timeout": 900, "env": {"SHOP": "7"}}


def test_there_are_at_least_task_parallelism_tasks(cloud_run: CloudRun, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cloud Run rejects fewer tasks than `task_parallelism`; surplus tasks end at once."""
    monkeypatch.setattr(echo.Command, "task_parallelism", 5, raising=False)
    monkeypatch.setattr(echo.Command, "tasks", 5, raising=False)
    echo.Command().delay_many(PARTNERS)

    assert sent(cloud_run)[2] == 5
    assert TaskRun.objects.count() == 3


def test_it_is_sent_after_the_commit(cloud_run: CloudRun) -> None:
    with transaction.atomic():
        echo.Command().delay_many(PARTNERS)
        assert cloud_run.requests == []

    assert sent(cloud_run)[2] == 3


def test_a_rollback_leaves_nothing(cloud_run: CloudRun) -> None:
    with transaction.atomic():
        echo.Command().delay_many(PARTNERS)
        transaction.set_rollback(True)

    assert (cloud_run.requests, JobRun.objects.count(), TaskRun.objects.count()) == ([], 0, 0)


def test_reconcile_sends_the_same_request(cloud_run: CloudRun) -> None:
    """The process that requested the run died before it sent the request."""
    with transaction.atomic():
        echo.Command().delay_many(PARTNERS)
        transaction.get_connection().run_on_commit.clear()
    JobRun.objects.update(sending_until=Now())
    assert reconcile(backends.current()) == {"sent": 1}
    arguments, variables, tasks = sent(cloud_run)
    assert (arguments, variables["CLOUDRUN_JOBS_ELEMENTS"], tasks) == (["echo"], "3", 3)


BAD: dict[str, tuple[Any, str]] = {
    "none": ([], "at least one element"),
    "too many": ([{}] * 10_001, "at most 10000 elements"),
    "a dictionary": ({"partner": 7}, "a list of dictionaries"),
    "text": ("partner", "a list of dictionaries"),
    "no list": (7, "a list of dictionaries"),
    "a number": ([{"partner": 7}, 8], "element 1: .*a dictionary of the job's options, got 8"),
    "a pair": ([[("partner", 7)]], "element 0: .*a dictionary"),
    "no name": ([{7: "partner"}], "element 0: .*a dictionary"),
    "an unknown option": ([{"partner": 7}, {}, {"partnr": 8}], "element 2: echo: .*'partnr'.*Did you mean"),
    "a wrong type": ([{"partner": 7}, {"partner": "x"}], "element 1: echo: .*invalid int value"),
}


@pytest.mark.parametrize(("elements", "message"), BAD.values(), ids=BAD)
def test_invalid_elements_start_nothing(cloud_run: CloudRun, elements: Any, message: str) -> None:
    with pytest.raises(InvalidArguments, match=message):
        echo.Command().delay_many(elements)

    assert (cloud_run.requests, JobRun.objects.count(), TaskRun.objects.count()) == ([], 0, 0)


def test_a_required_option_is_required(cloud_run: CloudRun) -> None:
    with pytest.raises(InvalidArguments, match=r"element 1: outcome: .*ending"):
        outcome.Command().delay_many([{"ending": "none"}, {}])

    assert cloud_run.requests == []


def test_using_tasks_is_rejected(cloud_run: CloudRun) -> None:
    with pytest.raises(InvalidArguments, match=r"expected no using\(tasks=\.\.\.\), got"):
        echo.Command().using(tasks=7).delay_many(PARTNERS)


def test_elements_may_come_from_an_iterator(cloud_run: CloudRun) -> None:
    echo.Command().delay_many({"partner": number} for number in range(2))

    assert sent(cloud_run)[2] == 2


def test_elements_have_references(cloud_run: CloudRun, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(echo.Command, "secret_options", ["note"], raising=False)
    echo.Command().delay_many([{"note": SecretRef("sesame")}, {"partner": 7}])
    first, second = TaskRun.objects.order_by("index")

    assert first.argv == ["echo", "--note=secret:sesame"]
    assert second.argv == ["echo", "--partner=7"]


def test_results_are_values_and_exceptions(cloud_run: CloudRun) -> None:
    """A task that never started is cancelled with its execution."""
    operation = echo.Command().delay_many(PARTNERS)
    TaskRun.objects.filter(index=0).update(status=Status.SUCCEEDED, result={"n": 1})
    TaskRun.objects.filter(index=1).update(status=Status.FAILED, reason="timeout", exit_code=143)
    cloud_run.execution = run_v2.Execution(
        task_count=3, succeeded_count=1, cancelled_count=2, completion_time="2026-01-02T00:00:00Z"
    )
    value, failed, cancelled = operation.results()

    assert value == {"n": 1}
    assert (type(failed), failed.code, str(failed)) == (JobFailed, 143, f"{operation.run}: task 1: timeout.")
    assert type(cancelled) is JobCancelled


# Inline.


def test_elements_run_in_order() -> None:
    operation = echo.Command().delay_many(PARTNERS)
    run = JobRun.objects.get()

    assert [result["partner"] for result in operation.results()] == [7, 8, None]
    assert operation.result() == operation.results()
    assert (run.status, run.task_count, run.succeeded_count) == (Status.SUCCEEDED, 3, 3)
    assert [task.argv for task in run.tasks.order_by("index")] == ARGUMENTS


def test_a_failure_does_not_stop_the_next_elements() -> None:
    """The run has failed, and its operation says so."""
    operation = outcome.Command().delay_many([{"ending": end} for end in ("text", "error", "exit", "none")])
    text, error, left, none = operation.results()

    assert (text, none) == ("all done", None)
    assert isinstance(error, JobFailed)
    assert str(error) == f"{operation.run}: task 1: ZeroDivisionError: division by zero."
    assert (type(left), left.code) == (JobFailed, 3)
    assert isinstance(operation.exception(), JobFailed)
    run = JobRun.objects.get()
    assert (run.status, run.succeeded_count, run.failed_count) == (Status.FAILED, 2, 2)


@pytest.fixture
def held() -> None:
    """Another execution holds the lock of a run with the arguments of the first element."""
    key = names.for_arguments("echo", {"partner": 7})
    assert isinstance(current().acquire(key, 1, Owner(holder="echo-test-other", nonce="other"), 60), Grant)


SKIPPED_FIRST = ["skipped", "succeeded", "succeeded"]


def test_each_element_has_its_own_lock(held: None) -> None:
    """Only an element whose arguments a run in progress has is skipped."""
    operation = echo.Command().delay_many(PARTNERS)

    assert [task.status for task in operation.run.tasks.order_by("index")] == SKIPPED_FIRST
    assert operation.results()[0] is None
    assert operation.run.status == Status.SUCCEEDED


def test_an_interrupt_ends_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """The remaining elements do not run."""

    def interrupted(self: echo.Command, *args: Any, **options: Any) -> None:
        if options["partner"] == 8:
            raise KeyboardInterrupt

    monkeypatch.setattr(echo.Command, "run", interrupted)
    with pytest.raises(KeyboardInterrupt):
        echo.Command().delay_many(PARTNERS)

    run = JobRun.objects.get()
    assert run.status == Status.CANCELLED
    assert [task.status for task in run.tasks.order_by("index")] == ["succeeded", "cancelled", "cancelled"]


def test_it_works_in_a_transaction() -> None:
    with transaction.atomic():
        operation = echo.Command().delay_many(PARTNERS)

    assert len(operation.results()) == 3


# In a container.


@pytest.fixture
def element(cloud_run: CloudRun, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that runs the container of one task, as Cloud Run starts it."""
    operation = echo.Command().delay_many(PARTNERS)

    def start(index: int, *arguments: str, tasks: int = 3, command: Any = echo) -> None:
        for name, value in {
            "CLOUD_RUN_EXECUTION": "echo-production-abcde",
            "CLOUD_RUN_TASK_INDEX": str(index),
            "CLOUD_RUN_TASK_COUNT": str(tasks),
            "CLOUDRUN_JOBS_RUN_ID": operation.run_id,
            "CLOUDRUN_JOBS_ELEMENTS": "3",
        }.items():
            monkeypatch.setenv(name, value)
        given = ["manage.py", command.__name__.rpartition(".")[2], *arguments]
        monkeypatch.setattr("sys.argv", given)
        command.Command().run_from_argv(given)

    return start


def test_each_task_runs_its_element(element: Any, cloud_run: CloudRun) -> None:
    for index in (2, 0, 1):
        element(index)
    run = JobRun.objects.get()

    assert [result["partner"] for result in run.return_value] == [7, 8, None]
    assert (run.status, run.succeeded_count, run.task_count) == (Status.SUCCEEDED, 3, 3)


@pytest.mark.parametrize("scope", ["execution", "task"])
def test_each_task_has_the_lock_of_its_element(
    element: Any, held: None, scope: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The slot of the job's parallelism is held by the execution; nothing is held afterwards."""
    monkeypatch.setattr(echo.Command, "lock_scope", scope, raising=False)
    for index in range(3):
        element(index)
    run = JobRun.objects.get()

    assert [task.status for task in run.tasks.order_by("index")] == SKIPPED_FIRST
    assert run.status == Status.SUCCEEDED
    assert [holder.holder for holder in current().holders("crj1:")] == ["echo-test-other"]


def test_a_retry_runs_the_same_element(element: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first attempt was killed before it had claimed the run."""
    monkeypatch.setenv("CLOUD_RUN_TASK_ATTEMPT", "1")
    element(1)
    task = TaskRun.objects.get(index=1)

    assert (task.attempt, task.status, task.result["partner"]) == (1, Status.SUCCEEDED, 8)


def test_a_surplus_task_does_nothing(element: Any) -> None:
    with pytest.raises(SystemExit) as leaving:
        element(4, tasks=5)

    assert leaving.value.code == 0
    assert TaskRun.objects.exclude(status="pending").count() == 0


def test_a_deleted_record_is_an_error(element: Any, capsys: pytest.CaptureFixture[str]) -> None:
    JobRun.objects.all().delete()
    with pytest.raises(SystemExit) as leaving:
        element(1)

    assert leaving.value.code == 75
    assert "The arguments of task 1 of run" in capsys.readouterr().err


def test_another_command_in_the_container_is_not_an_element(element: Any) -> None:
    """It inherits the variables of the job that started it."""
    element(0, "none", command=outcome)

    assert JobRun.objects.filter(command="outcome", status=Status.SUCCEEDED).count() == 1


def test_the_command_itself_may_be_started_with_arguments(element: Any) -> None:
    with pytest.raises(SystemExit):
        element(0, "--partner=x")


def test_call_command_is_no_element(element: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    element(0)

    assert call_command("echo", partner=9) is None
