"""Runs a job at once, in the process that asks for it."""

from __future__ import annotations

from ..operations import MockOperation
from .base import Backend, Request


class InlineBackend(Backend):
    """For the environments "local" and "test": no cloud, no waiting, the same road through the arguments."""

    def start(self, request: Request) -> MockOperation:
        """Run the job; what it raises reaches the caller as it is."""
        operation = MockOperation(request.spec.name, request.run_id)
        operation.set_result(request.work())
        return operation
