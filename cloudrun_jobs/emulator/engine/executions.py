"""Start, read, cancel and delete executions and their tasks, and prune old executions."""

from __future__ import annotations

import uuid
from datetime import timedelta
from typing import TYPE_CHECKING

from google.cloud import run_v2
from google.longrunning import operations_pb2

from cloudrun_jobs.emulator import messages, names
from cloudrun_jobs.emulator.engine import conditions, operations, overrides
from cloudrun_jobs.emulator.engine.jobs import set_latest_execution
from cloudrun_jobs.emulator.engine.lifecycle import ExecutionLifecycle, Platform
from cloudrun_jobs.emulator.engine.store import Record, Store, paginate, placed, random_id, validated
from cloudrun_jobs.emulator.errors import failed_precondition, not_found

if TYPE_CHECKING:
    from collections.abc import Iterable

CONSOLE_PREFIX = "/executions/"
Status = run_v2.ExecutionReference.CompletionStatus


class Executions:
    def __init__(self, store: Store, platform: Platform) -> None:
        self._store = store
        self._platform = platform

    def run(self, request: run_v2.RunJobRequest, principal: str) -> operations_pb2.Operation:
        with self._store.changed:
            job = self._job(request.name)
            template = overrides.apply(job, request.overrides)
            name = operations.new_name(names.location_of(job.name))
            if request.validate_only:
                # Observed on the service: an unfinished operation that cannot be fetched.
                return operations_pb2.Operation(name=name)
            return operations.of_execution(self.start(job, template, name, principal), name)

    def start(
        self,
        job: run_v2.Job,
        template: run_v2.ExecutionTemplate,
        operation: str,
        principal: str,
        token: str = "",
    ) -> Record:
        """Create and start an execution. Its name ends with the token, or with a random id."""
        name = f"{job.name}/executions/{names.short(job.name)}-{token or random_id()}"
        execution = self._new(job, template, name, principal)
        record = Record(execution, _tasks(execution), [operation])
        set_links(record.execution, record.tasks, self._platform.addresses.http)
        self._store.executions[name] = self._store.operations[operation] = record
        job.execution_count += 1
        set_latest_execution(job, execution, Status.EXECUTION_RUNNING)
        self._store.save(job)
        record.lifecycle = ExecutionLifecycle(record, self._store, self._platform, self._on_completed)
        self._store.save(record)
        record.lifecycle.begin()
        return record

    def start_by_token(self, job: run_v2.Job) -> None:
        """Start the execution that a job's execution token names, unless it exists."""
        token = job.start_execution_token or job.run_execution_token
        name = f"{job.name}/executions/{names.short(job.name)}-{token}"
        if token and name not in self._store.executions:
            operation = operations.new_name(names.location_of(job.name))
            self.start(job, job.template, operation, job.last_modifier, token)

    def get(self, request: run_v2.GetExecutionRequest) -> run_v2.Execution:
        with self._store.changed:
            return run_v2.Execution(self.existing(request.name).execution)

    def listed(self, request: run_v2.ListExecutionsRequest) -> run_v2.ListExecutionsResponse:
        pattern = f"{validated(request.parent, 'jobs')}/executions/-"
        with self._store.changed:
            newest_first = reversed(self._store.executions.items())
            matching = [record.execution for name, record in newest_first if names.matches(pattern, name)]
            executions, token = paginate(matching, request.page_size, request.page_token)
            return run_v2.ListExecutionsResponse(executions=executions, next_page_token=token)

    def cancel(self, request: run_v2.CancelExecutionRequest) -> operations_pb2.Operation:
        with self._store.changed:
            record = self.existing(request.name)
            if record.lifecycle is None or record.lifecycle.cancelled:
                raise failed_precondition(
                    f"Execution '{names.short(request.name)}' cannot be cancelled because it is not running."
                )
            if not request.validate_only:
                record.lifecycle.cancel()
            return self._operation_on(record)

    def delete(self, request: run_v2.DeleteExecutionRequest) -> operations_pb2.Operation:
        with self._store.changed:
            record = self.existing(request.name)
            if not request.validate_only:
                record.deleted = True
                record.execution.delete_time = self._platform.clock.now()
                record.execution.expire_time = self._platform.clock.now() + timedelta(days=30)
                del self._store.executions[request.name]
                self._store.remove(request.name)
                if record.lifecycle is not None:
                    record.lifecycle.cancel()
            return self._operation_on(record)

    def get_task(self, request: run_v2.GetTaskRequest) -> run_v2.Task:
        name = validated(request.name, "jobs", "executions", "tasks")
        with self._store.changed:
            for task in self._tasks_of(names.parent(name)):
                if task.name == name:
                    return run_v2.Task(task)
        raise not_found("TASK", names.short(name), names.location_of(name))

    def list_tasks(self, request: run_v2.ListTasksRequest) -> run_v2.ListTasksResponse:
        parent = validated(request.parent, "jobs", "executions")
        with self._store.changed:
            tasks, token = paginate(self._tasks_of(parent), request.page_size, request.page_token)
            return run_v2.ListTasksResponse(tasks=tasks, next_page_token=token)

    def existing(self, name: str) -> Record:
        record = self._store.executions.get(placed(name, "jobs", "executions"))
        if record is None:
            raise not_found("EXECUTION", names.short(name), names.location_of(name))
        return record

    def full_name(self, location: names.Location, short: str) -> str:
        """Return the full name of an execution from its short id, which v1 uses without the job."""
        pattern = f"{location.job('-')}/executions/{short}"
        with self._store.changed:
            for name in self._store.executions:
                if names.matches(pattern, name):
                    return name
        raise not_found("EXECUTION", short, location)

    def prune(self, name: str) -> None:
        """Drop a finished execution, as at the end of its retention."""
        with self._store.changed:
            if not self.existing(name).done:
                raise failed_precondition(f"Execution '{names.short(name)}' is running.")
            self._store.drop_execution(name)

    def _job(self, name: str) -> run_v2.Job:
        job = self._store.jobs.get(placed(name, "jobs"))
        if job is None:
            raise not_found("JOB", names.short(name), names.location_of(name))
        return job

    def _tasks_of(self, pattern: str) -> list[run_v2.Task]:
        if "-" in pattern.split("/"):
            records = [r for name, r in self._store.executions.items() if names.matches(pattern, name)]
            return [task for record in records for task in record.tasks]
        return self.existing(pattern).tasks

    def _operation_on(self, record: Record) -> operations_pb2.Operation:
        """Add an operation on an execution; like the first, it is done when the execution is."""
        name = operations.new_name(names.location_of(record.execution.name))
        self._store.operations[name] = record
        record.operations.append(name)
        return operations.of_execution(record, name)

    def _new(
        self, job: run_v2.Job, template: run_v2.ExecutionTemplate, name: str, principal: str
    ) -> run_v2.Execution:
        now = self._platform.clock.now()
        execution = run_v2.Execution(
            name=name,
            uid=str(uuid.uuid4()),
            creator=principal,
            generation=1,
            labels={**job.labels, **template.labels},
            annotations={**job.annotations, **template.annotations},
            create_time=now,
            update_time=now,
            # The short id: clients such as Airflow build names from it.
            job=names.short(job.name),
            launch_stage=job.launch_stage,
            observed_generation=1,
            parallelism=self._parallelism(template),
            reconciling=True,
            etag=f'"{uuid.uuid4().hex[:16]}"',
        )
        messages.carry(template, execution)
        conditions.set_condition(execution, "Completed", conditions.PENDING, now, conditions.WAITING_TO_START)
        return execution

    def _parallelism(self, template: run_v2.ExecutionTemplate) -> int:
        """Return how many tasks may run at once; the highest possible number if the job does not limit it."""
        return template.parallelism or min(template.task_count, self._platform.config.max_parallelism)

    def _on_completed(self, record: Record) -> None:
        job = self._store.jobs.get(names.parent(record.execution.name))
        reference = job.latest_created_execution if job is not None else None
        if job is not None and reference is not None and reference.name == names.short(record.execution.name):
            set_latest_execution(job, record.execution, _status(record.execution))
            job.latest_created_execution.completion_time = record.execution.completion_time
            self._store.save(job)
        if record.deleted:
            return
        self._store.save(record)
        done = [other for other in self._store.executions_of(names.parent(record.execution.name)) if other.done]
        for old in done[: max(len(done) - self._platform.config.retention, 0)]:
            self._store.drop_execution(old.execution.name)


def _status(execution: run_v2.Execution) -> int:
    if execution.succeeded_count == execution.task_count:
        return Status.EXECUTION_SUCCEEDED
    return Status.EXECUTION_CANCELLED if execution.cancelled_count else Status.EXECUTION_FAILED


def _tasks(execution: run_v2.Execution) -> list[run_v2.Task]:
    task = run_v2.Task(
        generation=1,
        observed_generation=1,
        create_time=execution.create_time,
        update_time=execution.create_time,
        labels=execution.labels,
        annotations=execution.annotations,
        job=execution.job,
        execution=names.short(execution.name),
    )
    messages.carry(execution.template, task)
    return [_numbered(task, execution, index) for index in range(execution.task_count)]


def _numbered(task: run_v2.Task, execution: run_v2.Execution, index: int) -> run_v2.Task:
    copy = run_v2.Task(task)
    pb = run_v2.Task.pb(copy)  # Ten times as fast as through proto-plus, for up to 10 000 tasks.
    pb.index = index
    pb.name = f"{execution.name}/tasks/{names.short(execution.name)}-task{index}"
    pb.uid = str(uuid.uuid4())
    pb.etag = f'"{pb.uid[:8]}"'
    return copy


def set_links(execution: run_v2.Execution, tasks: Iterable[run_v2.Task], http: str) -> None:
    """Link an execution and its tasks to the console of the emulator at this HTTP address."""
    execution.log_uri = f"{http}{CONSOLE_PREFIX}{execution.name}"
    for task in tasks:
        pb = run_v2.Task.pb(task)  # As in `_numbered`.
        pb.log_uri = f"{execution.log_uri}?task={pb.index}"
