"""Waiting for a run in the transaction that requested it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
from django.db import transaction
from google.api_core.future.polling import DEFAULT_POLLING

from cloudrun_jobs import Operation
from cloudrun_jobs.exceptions import CloudRunJobsError
from cloudrun_jobs.models import JobRun
from tests.backends.server import CloudRun
from tests.jobs.management.commands import echo

WAITS: dict[str, Callable[[Operation], object]] = {
    "result": lambda operation: operation.result(),
    "exception": lambda operation: operation.exception(),
    "with a timeout": lambda operation: operation.result(timeout=60),
    "with polling": lambda operation: operation.result(polling=DEFAULT_POLLING),
    "a second handle": lambda operation: operation.run.operation.result(),
}
REQUESTS: dict[str, Callable[[], Operation]] = {
    "delay": lambda: echo.Command().delay(),
    "delay_argv": lambda: echo.Command().delay_argv([]),
    "with a key": lambda: echo.Command().delay(idempotency_key="once"),
}


@pytest.mark.parametrize("wait", WAITS.values(), ids=WAITS.keys())
@pytest.mark.parametrize("ask", REQUESTS.values(), ids=REQUESTS.keys())
def test_waiting_raises_at_once(cloud: CloudRun, database: str, ask: Any, wait: Any) -> None:
    """The request is sent after the commit, so that waiting before it would never end."""
    before = time.monotonic()
    with transaction.atomic(using=database):
        operation = ask()
        with (
            transaction.atomic(using=database),
            pytest.raises(CloudRunJobsError, match=rf"{operation.run_id}: its request is sent once .*`atomic`"),
        ):
            wait(operation)

    assert time.monotonic() - before < 5
    JobRun.objects.filter(pk=operation.run_id).update(status="succeeded")
    assert operation.result() is None


def test_run_of_another_transaction_is_awaited(cloud: CloudRun, database: str) -> None:
    """A transaction may wait for a run that was requested before it."""
    with transaction.atomic(using=database):
        earlier = echo.Command().delay()

    with transaction.atomic(using=database):
        echo.Command().delay()
        with pytest.raises(TimeoutError):
            earlier.result(timeout=0.1)


def test_rolled_back_request_is_not_awaited(cloud: CloudRun, database: str) -> None:
    """A request that was rolled back with its savepoint leaves no run: waiting for it fails at once."""
    with transaction.atomic(using=database):
        with transaction.atomic(using=database):
            operation = echo.Command().delay()
            transaction.set_rollback(True, using=database)

        assert operation.exception() is not None
