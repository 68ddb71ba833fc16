"""Service resources that can only be read, for tools that copy a service's settings to a job."""

from __future__ import annotations

from google.cloud import run_v2

from cloudrun_jobs.emulator import names
from cloudrun_jobs.emulator.engine.store import validated
from cloudrun_jobs.emulator.errors import not_found


class Services:
    def __init__(self) -> None:
        self.by_name: dict[str, run_v2.Service] = {}

    def get(self, request: run_v2.GetServiceRequest) -> run_v2.Service:
        service = self.by_name.get(validated(request.name, "services"))
        if service is None:
            raise not_found("SERVICE", names.short(request.name), names.location_of(request.name))
        return run_v2.Service(service)
