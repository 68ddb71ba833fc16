"""Declare and run jobs on an emulator, and wait for their outcome."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar, cast

from google.cloud import run_v2

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import timedelta

    from cloudrun_jobs.emulator import Emulator

PLACE = "projects/acme/locations/europe-west4"
DEFAULT_TIMEOUT = 30.0  # seconds

T = TypeVar("T")


def eventually(probe: Callable[[], T | None], timeout: float = DEFAULT_TIMEOUT) -> T:
    """Poll `probe` until its result is true, and return the result."""
    deadline = time.monotonic() + timeout
    while not (result := probe()):
        assert time.monotonic() < deadline, f"no result within {timeout} s"
        time.sleep(0.02)
    return result


def job(*command: str, retries: int = 0, timeout: timedelta | str | None = None, **template: Any) -> run_v2.Job:
    """Return a job with one container that runs this command."""
    container = run_v2.Container(image=template.pop("image", "app"), command=list(command))
    container.env = [run_v2.EnvVar(name=k, value=v) for k, v in template.pop("env", {}).items()]
    task = run_v2.TaskTemplate(containers=[container], max_retries=retries)
    if timeout is not None:
        task.timeout = timeout
    return run_v2.Job(template=run_v2.ExecutionTemplate(template=task, **template))


def script(text: str, **options: Any) -> run_v2.Job:
    """Return a job that runs a shell script."""
    return job("/bin/sh", "-c", text, **options)


@dataclass
class Cloud:
    """An emulator, accessed through its gRPC clients."""

    emulator: Emulator

    def create(self, declared: run_v2.Job, job_id: str = "work") -> run_v2.Job:
        operation = self.emulator.clients.jobs.create_job(parent=PLACE, job=declared, job_id=job_id)
        return cast("run_v2.Job", operation.result())

    def start(self, declared: run_v2.Job, job_id: str = "work", **overrides: Any) -> Any:
        """Create the job, run it, and return the operation."""
        name = self.create(declared, job_id).name
        return self.emulator.clients.jobs.run_job(run_v2.RunJobRequest(name=name, overrides=overrides or None))

    def finish(self, declared: run_v2.Job, job_id: str = "work", **overrides: Any) -> run_v2.Execution:
        """Create the job, run it, and return its execution when it has finished, successfully or not."""
        return self.outcome(self.start(declared, job_id, **overrides).metadata.name)

    def execution(self, name: str) -> run_v2.Execution:
        return self.emulator.clients.executions.get_execution(name=name)

    def outcome(self, name: str) -> run_v2.Execution:
        return eventually(lambda: _if_done(self.execution(name)))

    def running(self, name: str) -> run_v2.Execution:
        """Return the execution when its first task runs."""
        return eventually(lambda: _if_started(self.execution(name)))

    def tasks(self, name: str) -> list[run_v2.Task]:
        return list(self.emulator.clients.tasks.list_tasks(parent=name))

    def output(self, stream: str = "stdout") -> list[str]:
        """Return the lines that tasks wrote."""
        name = f"projects/acme/logs/run.googleapis.com%2F{stream}"
        return [entry.text_payload for entry in self.emulator.logs.all() if entry.log_name == name]


def job_of(execution: run_v2.Execution) -> str:
    """Return the full name of the job; the execution's own field is the short id."""
    return execution.name.partition("/executions/")[0]


def condition(resource: Any, type_: str = "Completed") -> run_v2.Condition:
    conditions: list[run_v2.Condition] = resource.conditions
    return next(found for found in conditions if found.type_ == type_)


def _if_done(execution: run_v2.Execution) -> run_v2.Execution | None:
    return execution if execution.completion_time else None


def _if_started(execution: run_v2.Execution) -> run_v2.Execution | None:
    return execution if execution.start_time else None
