"""Backends in place of Cloud Run: one accepts every request, one rejects every request."""

from __future__ import annotations

from typing import ClassVar

from cloudrun_jobs.backends import Backend, Request
from cloudrun_jobs.exceptions import JobNotDeployed
from cloudrun_jobs.models import JobRun
from cloudrun_jobs.operations import ExecutionState, MockOperation


class StartedOperation(MockOperation):
    @property
    def console_url(self) -> str:
        return "https://console.example/executions?project=acme&id=x7k2p"


class RecordingBackend(Backend):
    requests: ClassVar[list[Request]] = []

    def submit(self, run: JobRun, request: Request, *, timeout: float | None = None) -> StartedOperation:
        self.requests.append(request)
        return StartedOperation(request.job, request.run_id)

    def find(self, request: Request, *, timeout: float) -> None:
        return None

    def operation(self, run: JobRun) -> StartedOperation:
        return StartedOperation(run.job, str(run.pk))

    def get_state(self, run: JobRun) -> ExecutionState:
        return ExecutionState(status=None)


class RejectingBackend(RecordingBackend):
    def submit(self, run: JobRun, request: Request, *, timeout: float | None = None) -> StartedOperation:
        raise JobNotDeployed(f"{request.job}: <no such job>.", hint="Create it.")
