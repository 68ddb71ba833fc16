"""`MockOperation` has the shape of Google's operation, and behaves like it."""

from __future__ import annotations

import inspect
from concurrent.futures import InvalidStateError
from dataclasses import fields
from threading import Timer
from typing import Any

import pytest
from google.api_core.operation import Operation as GoogleOperation
from google.cloud import run_v2
from google.longrunning.operations_pb2 import Operation as LongRunningOperation

from cloudrun_jobs import JobCancelled, MockOperation, Operation
from cloudrun_jobs.backends.cloudrun.operation import CloudRunOperation
from cloudrun_jobs.operations import MockExecution, MockLongRunningOperation

# Makes an operation of bytes off the wire, which no mock has seen.
NOT_OURS = {"deserialize"}


def public(cls: type) -> set[str]:
    return {name for name in dir(cls) if not name.startswith("_")}


@pytest.mark.parametrize("name", sorted(public(GoogleOperation) - NOT_OURS))
@pytest.mark.parametrize("ours", [MockOperation, CloudRunOperation])
def test_every_member_of_googles_operation_is_there(ours: type, name: str) -> None:
    """Each public member exists, of the same kind, and its method takes what Google's takes."""
    theirs, mine = inspect.getattr_static(GoogleOperation, name), inspect.getattr_static(ours, name)

    assert isinstance(mine, property) == isinstance(theirs, property)
    if not isinstance(theirs, property):
        assert list(inspect.signature(mine).parameters) == list(inspect.signature(theirs).parameters)


def test_both_operations_have_the_members_beyond_googles() -> None:
    """A view can use the same names of either."""
    beyond = {"execution_name", "run_id", "console_url", "logs_url"}

    assert set(Operation.__abstractmethods__) <= public(MockOperation) & public(CloudRunOperation)
    assert beyond <= public(Operation) | set(Operation.__annotations__)


@pytest.mark.parametrize("field", fields(MockExecution), ids=lambda field: field.name)
def test_metadata_has_the_fields_of_an_execution(field: Any) -> None:
    """A mock's metadata has no field that Cloud Run's Execution lacks."""
    assert field.name in run_v2.Execution.meta.fields


def test_operation_has_the_fields_of_a_long_running_one() -> None:
    """`operation.operation.name` is where Google keeps the name."""
    assert {field.name for field in fields(MockLongRunningOperation)} <= set(
        LongRunningOperation.DESCRIPTOR.fields_by_name
    )


def test_running_mock_counts_as_running() -> None:
    """A mock that has not ended is running, and result() raises at the timeout."""
    operation = MockOperation("echo-test", "run")

    assert (operation.done(), operation.running(), operation.cancelled()) == (False, True, False)
    assert (operation.metadata.running_count, operation.metadata.succeeded_count) == (1, 0)
    assert operation.metadata.completion_time is None
    assert "running" in repr(operation)
    with pytest.raises(TimeoutError):
        operation.result(timeout=0)


def test_mock_ends_with_a_result() -> None:
    """set_result() ends it, calls the callbacks, and releases waiting threads."""
    operation, seen = MockOperation("echo-test", "run"), []
    operation.add_done_callback(seen.append)
    Timer(0.01, operation.set_result, [7]).start()

    assert operation.result(timeout=30) == 7
    operation.add_done_callback(seen.append)
    assert seen == [operation, operation]
    assert operation.metadata.succeeded_count == operation.metadata.task_count == 1
    assert operation.operation.done
    assert operation.execution_name.startswith("projects/local/locations/local/jobs/echo-test/executions/")
    assert (operation.console_url, operation.logs_url) == ("", "")


def test_mock_ends_with_an_exception() -> None:
    """set_exception() ends it as a failure, which result() raises."""
    operation = MockOperation("echo-test", "run")
    operation.set_exception(ValueError("no"))

    assert isinstance(operation.exception(), ValueError)
    assert operation.metadata.failed_count == 1
    with pytest.raises(ValueError, match="no"):
        operation.result()


def test_mock_ends_once(caplog: pytest.LogCaptureFixture) -> None:
    """A second end is an error, and an exception of a callback does not stop the others."""
    operation, seen = MockOperation("echo-test", "run"), []
    operation.add_done_callback(lambda operation: 1 / 0)
    operation.add_done_callback(seen.append)
    operation.cancel()

    with pytest.raises(InvalidStateError):
        operation.set_result(3)
    assert (seen, operation.cancelled()) == ([operation], True)
    assert "ZeroDivisionError" in caplog.text


def test_mock_can_be_cancelled_while_it_runs() -> None:
    """cancel() works once; a cancelled mock raises like a cancelled execution."""
    operation = MockOperation("echo-test", "run")

    assert (operation.cancel(), operation.cancel(), operation.cancelled()) == (True, False, True)
    assert (operation.metadata.cancelled_count, operation.metadata.failed_count) == (1, 0)
    with pytest.raises(JobCancelled):
        operation.result()
