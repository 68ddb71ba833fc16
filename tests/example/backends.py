"""Stand-ins for Cloud Run: one that takes every request, one that takes none."""

from __future__ import annotations

from typing import ClassVar

from cloudrun_jobs.backends import Backend, Request
from cloudrun_jobs.exceptions import JobNotDeployed
from cloudrun_jobs.operations import MockOperation


class StartedOperation(MockOperation):
    @property
    def console_url(self) -> str:
        return "https://console.example/executions?project=acme&id=x7k2p"


class RecordingBackend(Backend):
    requests: ClassVar[list[Request]] = []

    def start(self, request: Request) -> StartedOperation:
        self.requests.append(request)
        return StartedOperation(request.spec.name, request.run_id)


class RefusingBackend(Backend):
    def start(self, request: Request) -> StartedOperation:
        raise JobNotDeployed(f"{request.spec.name}: <no such job>.", hint="Create it.")
