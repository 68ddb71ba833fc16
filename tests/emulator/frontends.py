"""The four clients of an emulator (gRPC, async gRPC, REST, gcloud) behind one interface."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, cast

import grpc
from google.api_core import exceptions
from google.auth.credentials import AnonymousCredentials
from google.cloud import run_v2
from google.cloud.run_v2.services.executions.transports import ExecutionsGrpcAsyncIOTransport
from google.cloud.run_v2.services.jobs.transports import JobsGrpcAsyncIOTransport
from google.cloud.run_v2.services.tasks.transports import TasksGrpcAsyncIOTransport

from tests.emulator.cloud import PLACE, condition, eventually
from tests.emulator.gcloud_cli import Gcloud

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cloudrun_jobs.emulator import Emulator

    AsyncGoogleClients = tuple[run_v2.JobsAsyncClient, run_v2.ExecutionsAsyncClient, run_v2.TasksAsyncClient]


@dataclass(frozen=True)
class Outcome:
    """The outcome of an execution, in the fields that all frontends report."""

    succeeded: int
    failed: int
    cancelled: int
    message: str


class Frontend(Protocol):
    def create(self, job_id: str, job: run_v2.Job) -> None: ...
    def run(self, job_id: str, overrides: dict[str, Any] | None = None) -> str: ...
    def outcome(self, execution: str) -> Outcome: ...
    def cancel(self, execution: str) -> None: ...
    def exit_codes(self, execution: str) -> list[int]: ...
    def jobs(self) -> list[str]: ...
    def delete(self, job_id: str) -> None: ...
    def error_message(self, job_id: str) -> str: ...


class Clients:
    """The Python clients, over any transport. Subclasses override `_call` to await."""

    def __init__(self, jobs: Any, executions: Any, tasks: Any) -> None:
        self._jobs, self._executions, self._tasks = jobs, executions, tasks

    def _call(self, method: Any, *args: Any, **kwargs: Any) -> Any:
        return method(*args, **kwargs)

    def _all(self, method: Any, **kwargs: Any) -> list[Any]:
        return list(method(**kwargs))

    def create(self, job_id: str, job: run_v2.Job) -> None:
        self._call(self._jobs.create_job, parent=PLACE, job=job, job_id=job_id)

    def run(self, job_id: str, overrides: dict[str, Any] | None = None) -> str:
        request = run_v2.RunJobRequest(name=f"{PLACE}/jobs/{job_id}", overrides=overrides)
        return cast(str, self._call(self._jobs.run_job, request).metadata.name)

    def outcome(self, execution: str) -> Outcome:
        def done() -> run_v2.Execution | None:
            found: run_v2.Execution = self._call(self._executions.get_execution, name=execution)
            return found if found.completion_time else None

        found = eventually(done)
        counts = (found.succeeded_count, found.failed_count, found.cancelled_count)
        return Outcome(*counts, condition(found).message)

    def cancel(self, execution: str) -> None:
        self._call(self._executions.cancel_execution, name=execution)

    def exit_codes(self, execution: str) -> list[int]:
        return [task.last_attempt_result.exit_code for task in self._all(self._tasks.list_tasks, parent=execution)]

    def jobs(self) -> list[str]:
        return [job.name.rpartition("/")[2] for job in self._all(self._jobs.list_jobs, parent=PLACE)]

    def delete(self, job_id: str) -> None:
        self._call(self._jobs.delete_job, name=f"{PLACE}/jobs/{job_id}")

    def error_message(self, job_id: str) -> str:
        """Return the error message of running a job that does not exist."""
        try:
            self.run(job_id)
        except exceptions.NotFound as error:
            message: str = error.message
            return message.removeprefix(f"POST http://{message.partition('//')[2].partition(': ')[0]}: ")
        raise AssertionError("the job exists")


class AsyncClients(Clients):
    def __init__(self, loop: asyncio.Runner, *clients: Any) -> None:
        super().__init__(*clients)
        self._loop = loop

    def _call(self, method: Any, *args: Any, **kwargs: Any) -> Any:
        async def call() -> Any:
            return await method(*args, **kwargs)

        return self._loop.run(call())

    def _all(self, method: Any, **kwargs: Any) -> list[Any]:
        async def call() -> list[Any]:
            return [item async for item in await method(**kwargs)]

        return self._loop.run(call())


class GcloudFrontend:
    def __init__(self, gcloud: Gcloud) -> None:
        self._gcloud = gcloud

    def create(self, job_id: str, job: run_v2.Job) -> None:
        container = job.template.template.containers[0]
        options = [f"--image={container.image}", f"--command={','.join(container.command)}"]
        # gcloud splits at commas; use another separator, because scripts may contain commas.
        options.append(f"--args=^|^{'|'.join(container.args)}")
        options.append(f"--tasks={job.template.task_count or 1}")
        options.append(f"--max-retries={job.template.template.max_retries}")
        self._gcloud("run", "jobs", "create", job_id, *options)

    def run(self, job_id: str, overrides: dict[str, Any] | None = None) -> str:
        options = []
        for container in (overrides or {}).get("container_overrides", []):
            options.append(f"--args=^|^{'|'.join(container['args'])}")
            options.append(f"--update-env-vars={','.join(v['name'] + '=' + v['value'] for v in container['env'])}")
        if overrides and "task_count" in overrides:
            options.append(f"--tasks={overrides['task_count']}")
        execution = self._gcloud("run", "jobs", "execute", job_id, "--async", *options)
        return cast(str, execution["metadata"]["name"])

    def outcome(self, execution: str) -> Outcome:
        def done() -> dict[str, Any] | None:
            found: dict[str, Any] = self._gcloud("run", "jobs", "executions", "describe", execution)["status"]
            return found if "completionTime" in found else None

        found = eventually(done)
        succeeded, failed, cancelled = (
            found.get(f"{kind}Count", 0) for kind in ("succeeded", "failed", "cancelled")
        )
        messages = {one["type"]: one["message"] for one in found["conditions"]}
        return Outcome(succeeded, failed, cancelled, messages["Completed"])

    def cancel(self, execution: str) -> None:
        self._gcloud("run", "jobs", "executions", "cancel", execution)

    def exit_codes(self, execution: str) -> list[int]:
        tasks = self._gcloud("run", "jobs", "executions", "tasks", "list", f"--execution={execution}")
        results = {task["status"]["index"]: task["status"].get("lastAttemptResult", {}) for task in tasks}
        return [results[index].get("exitCode", 0) for index in sorted(results)]

    def jobs(self) -> list[str]:
        return [job["metadata"]["name"] for job in self._gcloud("run", "jobs", "list")]

    def delete(self, job_id: str) -> None:
        self._gcloud("run", "jobs", "delete", job_id)

    def error_message(self, job_id: str) -> str:
        return cast(str, self._gcloud("run", "jobs", "execute", job_id, succeeds=False))


@contextlib.contextmanager
def over_grpc(emulator: Emulator, _: Path) -> Iterator[Frontend]:
    yield Clients(emulator.clients.jobs, emulator.clients.executions, emulator.clients.tasks)


@contextlib.contextmanager
def over_async_grpc(emulator: Emulator, _: Path) -> Iterator[Frontend]:
    with asyncio.Runner() as loop:

        async def connect() -> tuple[grpc.aio.Channel, AsyncGoogleClients]:
            channel = grpc.aio.insecure_channel(emulator.grpc)
            jobs = run_v2.JobsAsyncClient(transport=JobsGrpcAsyncIOTransport(channel=channel))
            executions = run_v2.ExecutionsAsyncClient(transport=ExecutionsGrpcAsyncIOTransport(channel=channel))
            tasks = run_v2.TasksAsyncClient(transport=TasksGrpcAsyncIOTransport(channel=channel))
            return channel, (jobs, executions, tasks)

        channel, clients = loop.run(connect())
        yield AsyncClients(loop, *clients)
        loop.run(channel.close())


@contextlib.contextmanager
def over_rest(emulator: Emulator, _: Path) -> Iterator[Frontend]:
    endpoint = {"api_endpoint": emulator.http}
    options: dict[str, Any] = {"credentials": AnonymousCredentials(), "client_options": endpoint}
    kinds = (run_v2.JobsClient, run_v2.ExecutionsClient, run_v2.TasksClient)
    with contextlib.ExitStack() as stack:
        clients = [kind(transport="rest", **options) for kind in kinds]
        for client in clients:
            stack.callback(client.transport.close)
        yield Clients(*clients)


@contextlib.contextmanager
def over_gcloud(emulator: Emulator, directory: Path) -> Iterator[Frontend]:
    yield GcloudFrontend(Gcloud(emulator.http, directory))
