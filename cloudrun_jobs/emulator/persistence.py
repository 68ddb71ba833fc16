"""What is kept from one start to the next, and how it is taken up again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from google.cloud import run_v2, scheduler_v1
from google.longrunning import operations_pb2
from google.rpc import status_pb2

from cloudrun_jobs.emulator.engine import conditions, operations
from cloudrun_jobs.emulator.engine.store import Record

if TYPE_CHECKING:
    from datetime import datetime

    from cloudrun_jobs.emulator.engine.store import Store
    from cloudrun_jobs.emulator.scheduler.jobs import ScheduledJobs
    from cloudrun_jobs.emulator.state import State

INTERRUPTED = "The emulator stopped while this execution was running."
UNAVAILABLE = 14


class Persistence:
    def __init__(self, state: State) -> None:
        self._state = state

    def keep(self, resource: run_v2.Job | Record) -> None:
        if isinstance(resource, Record):
            self._keep_record(resource)
        else:
            self._state.keep("job", resource.name, run_v2.Job.serialize(resource))

    def keep_scheduled(self, job: scheduler_v1.Job) -> None:
        # Jobs of both services have names of the same form.
        self._state.keep("scheduled", f"scheduler:{job.name}", scheduler_v1.Job.serialize(job))

    def forget(self, name: str) -> None:
        for row in (name, f"{name}:tasks", f"{name}:operation"):
            self._state.forget(row)

    def forget_scheduled(self, name: str) -> None:
        self._state.forget(f"scheduler:{name}")

    def restore(self, store: Store, scheduler: ScheduledJobs, now: datetime) -> None:
        for body in self._state.read("job"):
            job = run_v2.Job.deserialize(body)
            store.jobs[job.name] = job
        for record in self._records():
            if not record.execution.completion_time:
                interrupt(record, now)
                self._keep_record(record)
            store.executions[record.execution.name] = record
            for name in record.operations:
                store.operations[name] = record
        for body in self._state.read("scheduled"):
            scheduler.restore(scheduler_v1.Job.deserialize(body))

    def _keep_record(self, record: Record) -> None:
        name = record.execution.name
        tasks = run_v2.ListTasksResponse(tasks=record.tasks)
        operation = operations.of_execution(record, record.operations[0])
        self._state.keep("execution", name, run_v2.Execution.serialize(record.execution))
        self._state.keep("tasks", f"{name}:tasks", run_v2.ListTasksResponse.serialize(tasks))
        self._state.keep("operation", f"{name}:operation", operation.SerializeToString())

    def _records(self) -> list[Record]:
        bodies = (self._state.read(kind) for kind in ("execution", "tasks", "operation"))
        return [_record(*parts) for parts in zip(*bodies, strict=True)]


def interrupt(record: Record, now: datetime) -> None:
    """Settle an execution whose processes ended with the emulator that ran them."""
    execution = record.execution
    unfinished = [task for task in record.tasks if not task.completion_time]
    for task in unfinished:
        task.completion_time = now
        conditions.put(task.conditions, "Completed", conditions.FAILED, now, INTERRUPTED)
    execution.failed_count += len(unfinished)
    execution.running_count = 0
    execution.completion_time, execution.reconciling = now, False
    conditions.put(execution.conditions, "Completed", conditions.FAILED, now, INTERRUPTED)
    record.error = status_pb2.Status(code=UNAVAILABLE, message=INTERRUPTED)


def _record(execution: Any, tasks: Any, operation: Any) -> Record:
    kept = operations_pb2.Operation.FromString(operation)
    return Record(
        run_v2.Execution.deserialize(execution),
        list(run_v2.ListTasksResponse.deserialize(tasks).tasks),
        [kept.name],
        kept.error if kept.HasField("error") else None,
    )
