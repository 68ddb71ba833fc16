"""Runs a job at once, in the process that asks for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..exceptions import JobCancelled, JobFailed
from ..models import JobRun, Status
from ..operations import MockOperation
from .base import InProcessBackend, Request


class InlineBackend(InProcessBackend):
    """For the environments "local" and "test": no cloud, no waiting, the same road through the arguments."""

    def perform(self, request: Request, work: Callable[[], Any]) -> MockOperation:
        """Run the job; what it raises reaches the caller as it is."""
        operation = MockOperation(request.job, request.run_id)
        operation.set_result(work())
        return operation

    def operation(self, run: JobRun) -> MockOperation:
        """Return a handle that has ended as the run did, or has not ended yet."""
        operation = MockOperation(run.job, str(run.pk))
        if run.status in {Status.SUCCEEDED, Status.SKIPPED}:
            operation.set_result(run.result)
        elif run.status == Status.CANCELLED:
            operation.set_exception(JobCancelled(f"{run}: {run.reason}."))
        elif run.is_finished:
            operation.set_exception(JobFailed(f"{run}: {run.error_class or run.reason}: {run.error_message}"))
        return operation
