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
        self.check_exists(request.name)
        return run_v2.Service(self.by_name[request.name])

    def check_exists(self, name: str) -> None:
        if validated(name, "services") not in self.by_name:
            raise not_found("SERVICE", names.short(name), names.location_of(name))
