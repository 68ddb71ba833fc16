"""litestar-queues' backend of Cloud Run jobs: a dispatcher here, and `litestar queues run-task` in the jobs."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.clients.emulator import (
    PARENT,
    PROJECT,
    REGION,
    create_job,
    emulator,
    eventually_async,
    grpc_clients,
    home,
    project,
    step,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

APPLICATION = f"""
import asyncio

from litestar import Litestar
from litestar_queues import QueueConfig, QueuePlugin, WorkerConfig, task
from litestar_queues.backends.sqlspec import SQLSpecBackendConfig
from litestar_queues.execution.cloudrun import CloudRunExecutionConfig
from sqlspec.adapters.aiosqlite import AiosqliteConfig

@task("reports.render", execution_backend="cloudrun")
async def render(report: str) -> dict[str, str]:
    return {{"rendered": report}}


@task("reports.fail", execution_backend="cloudrun")
async def fail() -> None:
    raise ValueError("no such report")


@task("reports.wait", execution_backend="cloudrun", execution_profile="heavy")
async def wait() -> None:
    await asyncio.sleep(60)


def create_config() -> QueueConfig:
    return QueueConfig(
        queue_backend=SQLSpecBackendConfig(
            sqlspec_config=AiosqliteConfig(connection_config={{"database": "DATABASE"}})
        ),
        execution_backend=CloudRunExecutionConfig(
            project_id="{PROJECT}", region="{REGION}", job_name="worker", profiles={{"heavy": "worker-heavy"}}
        ),
        worker=WorkerConfig(placement="external", reconcile_interval=0.2),
        task_modules=("application",),
    )


app = Litestar(plugins=[QueuePlugin(config=create_config())])
"""


def container() -> dict[str, Any]:
    """Return the container of the guide's job: `--command litestar --args queues,run-task`."""
    environment = {"QUEUES_CONFIG_FACTORY": "application:create_config", "LITESTAR_APP": "application:app"}
    return {
        "image": "worker",
        "command": [str(Path(sys.executable).with_name("litestar"))],
        "args": ["queues", "run-task"],
        "env": [{"name": name, "value": value} for name, value in environment.items()],
    }


@contextlib.asynccontextmanager
async def dispatcher(create_config: Callable[[], Any]) -> AsyncIterator[Any]:
    """Run the worker loop that dispatches to Cloud Run; yield a service that enqueues."""
    from litestar_queues import QueueService
    from litestar_queues.worker.runtime import run_worker

    config = create_config()
    graceful, force, ready = asyncio.Event(), asyncio.Event(), asyncio.Event()
    worker = asyncio.create_task(
        run_worker(QueueService(config), config, graceful_stop=graceful, force_stop=force, ready=ready.set)
    )
    await ready.wait()
    async with QueueService(create_config()) as service:
        yield service
    graceful.set()
    assert await worker == 0


async def status(result: Any, expected: str) -> Any:
    """Wait until a task has this status."""

    async def reached() -> Any:
        await result.refresh()
        return result.status == expected and result

    return await eventually_async(reached)


async def main() -> None:
    import application  # type: ignore[import-not-found]  # In the directory of the project.
    from google.cloud import run_v2
    from litestar_queues import QueueService

    executions = run_v2.ExecutionsAsyncClient()
    async with QueueService(application.create_config()) as queue:
        await queue.get_queue_backend().create_schema()
    async with dispatcher(application.create_config) as queue:
        rendered = await status(await queue.enqueue(application.render, "yearly"), "completed")
        assert rendered.result == {"rendered": "yearly"}
        execution = await executions.get_execution(name=rendered.record.execution_ref)
        assert execution.name.startswith(f"{PARENT}/jobs/worker/executions/")
        step("dispatched a task to", execution.name)

        failed = await status(await queue.enqueue(application.fail), "failed")
        assert "no such report" in failed.error
        step("failed as expected")

        delayed = await queue.enqueue(application.render, "later", run_after=1.0)
        assert delayed.status == "scheduled"
        assert (await status(delayed, "completed")).result == {"rendered": "later"}
        step("dispatched a delayed task")

        waiting = await status(await queue.enqueue(application.wait), "running")
        assert "/jobs/worker-heavy/executions/" in waiting.record.execution_ref
        assert await queue.cancel_task(waiting.id, include_running=True)
        await status(waiting, "cancelled")

        async def cancelled() -> int:
            return int((await executions.get_execution(name=waiting.record.execution_ref)).cancelled_count)

        assert await eventually_async(cancelled) == 1
        step("cancelled a running task of another profile, and its execution")


if __name__ == "__main__":
    with home(), project({"application.py": ""}) as directory:
        (directory / "application.py").write_text(APPLICATION.replace("DATABASE", f"{directory}/queue.sqlite3"))
        sys.path.insert(0, str(directory))
        with emulator("--directory", str(directory)) as addresses, grpc_clients(addresses.grpc):
            create_job("worker", container())
            create_job("worker-heavy", container())
            asyncio.run(main())
