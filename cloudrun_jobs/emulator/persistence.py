"""Save jobs, executions, scheduler jobs, secrets and documents, and restore them at the next start."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from google.cloud import run_v2, scheduler_v1
from google.longrunning import operations_pb2
from google.rpc import status_pb2

from cloudrun_jobs.emulator.engine import conditions, operations
from cloudrun_jobs.emulator.engine.secrets import Secret
from cloudrun_jobs.emulator.engine.store import Record
from cloudrun_jobs.emulator.project.documents import KINDS

if TYPE_CHECKING:
    from datetime import datetime

    from cloudrun_jobs.emulator.engine.secrets import Secrets
    from cloudrun_jobs.emulator.engine.store import Saved, Store
    from cloudrun_jobs.emulator.project.documents import Documents
    from cloudrun_jobs.emulator.scheduler.jobs import ScheduledJobs
    from cloudrun_jobs.emulator.state import State

INTERRUPTED = "The emulator stopped while this execution was running."
# The message and the attribute of the store, by the kind of the row.
RESOURCES: dict[str, tuple[Any, str]] = {
    "job": (run_v2.Job, "jobs"),
    "service": (run_v2.Service, "services"),
    "revision": (run_v2.Revision, "revisions"),
    "worker pool": (run_v2.WorkerPool, "worker_pools"),
}
UNAVAILABLE = 14  # The number of the gRPC status.


class Persistence:
    def __init__(self, state: State) -> None:
        self._state = state

    def save(self, resource: Saved) -> None:
        if isinstance(resource, Record):
            self._save_record(resource)
        else:
            kind = next(kind for kind, (message, _) in RESOURCES.items() if isinstance(resource, message))
            self._state.save(kind, resource.name, type(resource).serialize(resource))

    def save_scheduled(self, job: scheduler_v1.Job, deliveries: list[dict[str, Any]]) -> None:
        # Jobs of both services have names of the same form.
        self._state.save("scheduled", f"scheduler:{job.name}", scheduler_v1.Job.serialize(job))
        self._state.save("deliveries", f"deliveries:{job.name}", json.dumps([job.name, deliveries]).encode())

    def save_secret(self, secret: Secret) -> None:
        self._state.save("secret", secret.name, secret.encode())

    def save_document(self, kind: str, name: str, value: Any) -> None:
        row = f"{kind}:{name}"
        if value is None:
            self._state.remove(row)
        else:
            self._state.save(kind, row, json.dumps([name, value]).encode())

    def restore_documents(self, documents: Documents) -> None:
        for kind in KINDS:
            for body in self._state.load(kind):
                documents.restore(kind, *json.loads(body))

    def remove(self, name: str) -> None:
        for row in (name, f"{name}:tasks", f"{name}:operation"):
            self._state.remove(row)

    def remove_scheduled(self, name: str) -> None:
        for kind in ("scheduler", "deliveries"):
            self._state.remove(f"{kind}:{name}")

    def restore(self, store: Store, scheduler: ScheduledJobs, secrets: Secrets, now: datetime) -> None:
        for kind, (message, collection) in RESOURCES.items():
            for resource in map(message.deserialize, self._state.load(kind)):
                getattr(store, collection)[resource.name] = resource
        for record in self._records():
            if not record.execution.completion_time:
                interrupt(record, now)
                self._save_record(record)
            store.executions[record.execution.name] = record
            for name in record.operations:
                store.operations[name] = record
        deliveries = dict(map(json.loads, self._state.load("deliveries")))
        for job in map(scheduler_v1.Job.deserialize, self._state.load("scheduled")):
            scheduler.restore(job, deliveries.get(job.name, ()))
        for secret in map(Secret.decode, self._state.load("secret")):
            secrets.by_name[secret.name] = secret

    def _save_record(self, record: Record) -> None:
        name = record.execution.name
        tasks = run_v2.ListTasksResponse(tasks=record.tasks)
        operation = operations.of_execution(record, record.operations[0])
        self._state.save("execution", name, run_v2.Execution.serialize(record.execution))
        self._state.save("tasks", f"{name}:tasks", run_v2.ListTasksResponse.serialize(tasks))
        self._state.save("operation", f"{name}:operation", operation.SerializeToString())

    def _records(self) -> list[Record]:
        bodies = (self._state.load(kind) for kind in ("execution", "tasks", "operation"))
        return [_record(*parts) for parts in zip(*bodies, strict=True)]


def interrupt(record: Record, now: datetime) -> None:
    """Fail an execution whose processes ended with the emulator that ran them."""
    execution = record.execution
    unfinished = [task for task in record.tasks if not task.completion_time]
    for task in unfinished:
        task.completion_time = now
        conditions.set_condition(task, "Completed", conditions.FAILED, now, INTERRUPTED)
    execution.failed_count += len(unfinished)
    execution.running_count = 0
    execution.completion_time, execution.reconciling = now, False
    conditions.set_condition(execution, "Completed", conditions.FAILED, now, INTERRUPTED)
    record.error = status_pb2.Status(code=UNAVAILABLE, message=INTERRUPTED)


def _record(execution: Any, tasks: Any, operation: Any) -> Record:
    stored = operations_pb2.Operation.FromString(operation)
    return Record(
        run_v2.Execution.deserialize(execution),
        list(run_v2.ListTasksResponse.deserialize(tasks).tasks),
        [stored.name],
        stored.error if stored.HasField("error") else None,
    )
