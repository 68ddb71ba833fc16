"""The handle on an execution of Cloud Run."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from threading import Event, Timer
from typing import Any
from unittest.mock import Mock

import grpc
import pytest
from asgiref.sync import async_to_sync
from django.db import OperationalError, connection
from django.utils import translation
from google.api_core.future.polling import DEFAULT_POLLING
from google.cloud import run_v2

from cloudrun_jobs import JobCancelled, JobFailed, ResultUnavailable
from cloudrun_jobs.backends.cloudrun import operation as operation_module
from cloudrun_jobs.exceptions import AccessDenied
from cloudrun_jobs.models import JobRun
from cloudrun_jobs.models.functions import Now
from tests.backends.server import CloudRun
from tests.jobs.management.commands import echo

State = run_v2.Condition.State
Reason = run_v2.Condition.ExecutionReason
ENDED = datetime(2026, 1, 2, tzinfo=UTC)
LOGS = "https://console.cloud.google.com/logs?x"


def completed(state: Any, message: str = "", reason: Any = None) -> run_v2.Condition:
    return run_v2.Condition(type_="Completed", state=state, message=message, execution_reason=reason)


def test_running_execution_is_not_done(cloud_run: CloudRun) -> None:
    """While the execution runs, done() is False and result() raises after its timeout."""
    operation = echo.Command().delay()

    assert (operation.done(), operation.running(), operation.cancelled()) == (False, True, False)
    with pytest.raises(TimeoutError):
        operation.result(timeout=0)


def test_success_requires_every_task(cloud_run: CloudRun) -> None:
    """If all tasks succeeded, there is a result and no exception."""
    cloud_run.execution = run_v2.Execution(
        task_count=3,
        succeeded_count=3,
        completion_time=ENDED,
        conditions=[completed(State.CONDITION_SUCCEEDED)],
    )
    operation = echo.Command().delay()
    JobRun.objects.update(status="succeeded", result=[1, 2, 3])

    assert operation.result() == [1, 2, 3]
    assert operation.exception() is None
    assert operation.metadata.succeeded_count == 3


def test_one_failed_task_fails_the_execution(cloud_run: CloudRun) -> None:
    """If two of three tasks succeeded, the error has Cloud Run's message and the URL of the logs."""
    message = "Task x-task0 failed with exit code: 1"
    cloud_run.execution = run_v2.Execution(
        task_count=3,
        succeeded_count=2,
        failed_count=1,
        completion_time=ENDED,
        log_uri=LOGS,
        conditions=[
            run_v2.Condition(type_="Started", state=State.CONDITION_SUCCEEDED),
            completed(State.CONDITION_FAILED, message),
        ],
    )
    operation = echo.Command().delay()

    with pytest.raises(JobFailed, match=r"2 of 3 tasks succeeded\. Task x-task0 failed.* Logs: https"):
        operation.result()
    assert not operation.cancelled()
    assert operation.logs_url == LOGS


@pytest.mark.parametrize(
    "execution",
    [
        run_v2.Execution(task_count=2, succeeded_count=1, cancelled_count=1, completion_time=ENDED),
        run_v2.Execution(
            task_count=1,
            completion_time=ENDED,
            conditions=[completed(State.CONDITION_FAILED, "Cancelled by user.", Reason.CANCELLED)],
        ),
    ],
    ids=["by its count", "by its reason"],
)
def test_cancelled_execution_raises(cloud_run: CloudRun, execution: run_v2.Execution) -> None:
    """Google's operation ends without an error after a cancellation; the handle raises."""
    cloud_run.execution = execution
    operation = echo.Command().delay()

    assert isinstance(operation.exception(), JobCancelled)
    assert operation.cancelled()


def test_missing_image_fails_the_execution(cloud_run: CloudRun) -> None:
    """An execution that fails before it starts has no completion time, but has ended."""
    cloud_run.execution = run_v2.Execution(
        task_count=1, conditions=[completed(State.CONDITION_FAILED, "Image 'x' not found.")]
    )

    with pytest.raises(JobFailed, match="Image 'x' not found"):
        echo.Command().delay().result()


def test_execution_without_tasks_fails(cloud_run: CloudRun) -> None:
    """Zero of zero tasks is no success."""
    cloud_run.execution = run_v2.Execution(completion_time=ENDED)

    assert isinstance(echo.Command().delay().exception(), JobFailed)


def test_polling_continues_after_transient_errors(cloud_run: CloudRun) -> None:
    """A transient error does not end the operation."""
    cloud_run.execution = run_v2.Execution(task_count=1, succeeded_count=1, completion_time=ENDED)
    operation = echo.Command().delay()
    cloud_run.errors = [
        (grpc.StatusCode.UNAVAILABLE, "try again"),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "too many reads"),
    ]

    assert isinstance(operation.exception(), ResultUnavailable)
    assert cloud_run.polls == 3


def test_done_polls_once(cloud_run: CloudRun) -> None:
    """done() makes one call, and is False after a transient error."""
    operation = echo.Command().delay()
    cloud_run.errors = [(grpc.StatusCode.UNAVAILABLE, "try again")]

    assert operation.done() is False
    assert cloud_run.polls == 1


def test_result_has_no_default_timeout(cloud_run: CloudRun) -> None:
    """Google's polling gives up after 900 seconds; a task may take a week."""
    assert echo.Command().delay()._polling.timeout is None  # type: ignore[attr-defined]


def test_callback_is_called_after_a_permanent_error(cloud_run: CloudRun) -> None:
    """A permanent error of polling ends the operation and calls the callbacks."""
    called = Event()
    operation = echo.Command().delay()
    cloud_run.errors = [(grpc.StatusCode.PERMISSION_DENIED, "no")]
    operation.add_done_callback(lambda done: called.set())

    assert called.wait(30)
    assert isinstance(operation.exception(), AccessDenied)


def test_deleted_execution_fails(cloud_run: CloudRun) -> None:
    """The handle does not wait for an execution that no longer exists. Its error is English in every language."""
    operation = echo.Command().delay()
    cloud_run.errors = [(grpc.StatusCode.NOT_FOUND, "Resource 'x' of kind 'EXECUTION' does not exist.")]

    with translation.override("ja"), pytest.raises(JobFailed, match=r"lost\. Cloud Run has no such execution"):
        operation.result()


def test_missing_permission_to_poll_is_named(cloud_run: CloudRun) -> None:
    """The error of a caller that may not read executions names the permission."""
    operation = echo.Command().delay()
    cloud_run.errors = [(grpc.StatusCode.PERMISSION_DENIED, "no")]

    with pytest.raises(AccessDenied, match=r"run\.executions\.get"):
        operation.done()


def test_cancel_cancels_the_execution(cloud_run: CloudRun) -> None:
    """cancel() sends the execution's full name."""
    operation = echo.Command().delay()

    assert operation.cancel()
    assert cloud_run.cancelled == [operation.execution_name]


def test_cancel_returns_false_after_the_end(cloud_run: CloudRun) -> None:
    """Cancelling an execution that has ended is no error."""
    operation = echo.Command().delay()
    cloud_run.errors = [(grpc.StatusCode.FAILED_PRECONDITION, "cannot be cancelled because it is not running.")]

    assert operation.cancel() is False


def test_callback_is_called_at_the_end(cloud_run: CloudRun) -> None:
    """A callback gets the handle, whether it is added before or after the end."""
    called = Event()
    seen: list[Any] = []
    operation = echo.Command().delay()
    cloud_run.execution = run_v2.Execution(
        name=operation.execution_name, task_count=1, succeeded_count=1, completion_time=ENDED
    )
    operation.add_done_callback(lambda done: (seen.append(done), called.set()))

    assert called.wait(30)
    operation.add_done_callback(seen.append)
    assert seen == [operation, operation]


def test_names_and_urls(cloud_run: CloudRun) -> None:
    """The handle has the names of its operation and execution, and the URL of the console."""
    operation = echo.Command().delay()

    assert operation.operation.name == "projects/p/locations/r/operations/1"
    assert repr(operation) == f"<CloudRunOperation {operation.execution_name}>"
    assert operation.console_url == (
        "https://console.cloud.google.com/run/jobs/executions/details"
        "/asia-northeast1/echo-production-abcde?project=acme"
    )


def record_end(operation: Any, status: str = "succeeded", **values: Any) -> None:
    """Record the end of the run, as its container does."""
    JobRun.objects.filter(pk=operation.run_id).update(status=status, finished_at=Now(), **values)


ENDS: list[tuple[dict[str, Any], Any]] = [
    ({"result": {"a": 1}}, {"a": 1}),
    ({"status": "skipped"}, None),
    ({"status": "failed", "error_class": "ValueError", "error_message": "no"}, "failed. no"),
    ({"status": "cancelled"}, "cancelled"),
]


@pytest.mark.parametrize(
    ("state", "values", "outcome"),
    [("running", *end) for end in ENDS] + [(state, *end) for state in ("silent", "denied") for end in ENDS[::2]],
    ids=str,
)
def test_result_follows_the_record(
    cloud_run: CloudRun, monkeypatch: pytest.MonkeyPatch, state: str, values: Any, outcome: Any
) -> None:
    """result() returns within a second of the record's end, whatever Cloud Run reports by then."""
    # As Google's intervals are after a while.
    monkeypatch.setattr(operation_module, "POLLING", operation_module.POLLING.with_delay(60, 60))
    operation = echo.Command().delay()
    ended: list[float] = []

    def end() -> None:
        if state != "running":
            code = {"silent": grpc.StatusCode.UNAVAILABLE, "denied": grpc.StatusCode.PERMISSION_DENIED}[state]
            cloud_run.errors = [(code, "a message")] * 9
        ended.append(time.monotonic())
        record_end(operation, **values)
        connection.close()

    timer = Timer(1.2, end)
    timer.start()
    error = operation.exception(timeout=60)
    took = time.monotonic() - ended[0]
    timer.join()

    assert took < 2
    assert operation.done()
    if isinstance(outcome, str):
        assert isinstance(error, JobFailed)
        assert outcome in str(error)
    else:
        assert (error, operation.result()) == (None, outcome)


def test_lost_run_is_followed(cloud_run: CloudRun) -> None:
    """A run that is marked as lost may still end: Cloud Run decides."""
    operation = echo.Command().delay()
    record_end(operation, "lost")

    assert operation.done() is False


def test_execution_is_polled_at_googles_intervals(cloud_run: CloudRun) -> None:
    """Reading the record more often adds no calls: quotas count those."""
    operation = echo.Command().delay()

    with pytest.raises(TimeoutError, match="has not ended within 4 seconds"):
        operation.result(timeout=4)

    assert cloud_run.polls <= 5  # At 0, 1 and 2.5 seconds, and at the end.


def test_unavailable_record_does_not_end_the_wait(cloud_run: CloudRun, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the database is away, Cloud Run is polled."""
    operation = echo.Command().delay()
    monkeypatch.setattr(JobRun.objects, "filter", Mock(side_effect=OperationalError("gone")))

    assert operation.done() is False
    assert cloud_run.polls == 1


def test_custom_polling_is_used(cloud_run: CloudRun) -> None:
    """The intervals of the caller's `polling` are kept."""
    operation = echo.Command().delay()

    with pytest.raises(TimeoutError):
        operation.result(polling=DEFAULT_POLLING.with_delay(0.1, 0.1).with_timeout(2))

    assert cloud_run.polls > 8


@pytest.mark.parametrize(
    "service", ["Task x failed with exit code: 1", "It failed.", "", "The configured timeout was reached"]
)
@pytest.mark.parametrize("message", ["bad input", "bad input.", "why?", "line 1\nline 2 ", ""])
@pytest.mark.parametrize("recorded", [True, False])
def test_sentences_of_a_failure_are_separate(
    cloud_run: CloudRun, message: str, service: str, recorded: bool
) -> None:
    """The job's error, Cloud Run's message and the URL of the logs each end before the next begins."""
    cloud_run.execution = run_v2.Execution(
        task_count=3,
        failed_count=3,
        completion_time=ENDED,
        log_uri=LOGS,
        conditions=[completed(State.CONDITION_FAILED, service)],
    )
    operation = echo.Command().delay()
    if recorded:
        record_end(operation, "failed", error_class="ValueError", error_message=message)

    text = str(operation.exception())

    assert ".." not in text
    assert "  " not in text
    assert text.endswith(f"Logs: {LOGS}")
    for part in filter(None, ["tasks succeeded.", service, message.strip() if recorded else ""]):
        assert text.partition(part)[2].lstrip(".")[:1] == " "
        assert (part + text.partition(part)[2])[: len(part) + 1].rstrip()[-1] in ".?"


def test_text_of_an_error_is_separate_from_its_hint() -> None:
    """A message without a full stop gets one before the hint, and none without a hint."""
    assert str(JobFailed("It failed", hint="Try again.")) == "It failed. Try again."
    assert str(JobFailed("It failed.", hint="Try again.")) == "It failed. Try again."
    assert str(JobFailed("It failed")) == "It failed"


def test_async_code_may_call_done(cloud_run: CloudRun) -> None:
    """In a running event loop, where the record cannot be read, done() polls Cloud Run."""
    operation = echo.Command().delay()

    async def view() -> bool:
        return bool(operation.done())

    assert async_to_sync(view)() is False
    assert cloud_run.polls == 1
