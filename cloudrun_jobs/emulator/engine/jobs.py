"""Create, read, update and delete job resources; start a job that has an execution token."""

from __future__ import annotations

import uuid
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from google.cloud import run_v2
from google.rpc import status_pb2

from cloudrun_jobs.emulator import limits, names
from cloudrun_jobs.emulator.engine import conditions, operations, output_only
from cloudrun_jobs.emulator.engine.store import Store, check_etag, paginate, placed, validated
from cloudrun_jobs.emulator.errors import already_exists, invalid, not_found
from cloudrun_jobs.emulator.template_limits import GPU

if TYPE_CHECKING:
    from collections.abc import Callable

    from google.longrunning import operations_pb2

    from cloudrun_jobs.emulator.engine.lifecycle import Platform

CommonReason = run_v2.Condition.CommonReason
NOT_FOUND = 5  # The number of the gRPC status.
DEFAULT_TIMEOUT = timedelta(seconds=600)
DEFAULT_RETRIES = 3
DEFAULT_LIMITS = {"cpu": "1000m", "memory": "512Mi"}
GPU_LIMITS = {"cpu": "4000m", "memory": "16Gi"}
# An update keeps these fields, which callers cannot set.
SERVICE_SET_FIELDS = ("name", "uid", "create_time", "creator", "execution_count", "latest_created_execution")


class Jobs:
    def __init__(
        self,
        store: Store,
        platform: Platform,
        start: Callable[[run_v2.Job], None],
        drop_policy: Callable[[str], None],
    ) -> None:
        self._store = store
        self._clock = platform.clock
        self._images = platform.images
        self._start = start  # Runs a job that has an execution token.
        self._drop_policy = drop_policy

    def create(self, request: run_v2.CreateJobRequest, principal: str) -> operations_pb2.Operation:
        location = names.location_of(placed(request.parent))
        limits.check_job_id(request.job_id)
        job = with_defaults(request.job, location.job(request.job_id))
        limits.check_job(job)
        with self._store.changed:
            if job.name in self._store.jobs:
                raise already_exists(request.job_id)
            job.uid, job.creator, job.create_time = str(uuid.uuid4()), principal, self._clock.now()
            self._stamp(job, principal, generation=1)
            return self._put(job, validate_only=request.validate_only)

    def get(self, request: run_v2.GetJobRequest) -> run_v2.Job:
        with self._store.changed:
            return run_v2.Job(self.existing(request.name))

    def listed(self, request: run_v2.ListJobsRequest) -> run_v2.ListJobsResponse:
        location = names.location_of(validated(request.parent))
        with self._store.changed:
            # gcloud lists the jobs of all regions at once, with "-" for the region.
            found = [job for name, job in self._store.jobs.items() if names.matches(location.job("-"), name)]
            jobs, token = paginate(sorted(found, key=lambda job: job.name), request.page_size, request.page_token)
            return run_v2.ListJobsResponse(jobs=jobs, next_page_token=token)

    def update(self, request: run_v2.UpdateJobRequest, principal: str) -> operations_pb2.Operation:
        name = placed(request.job.name, "jobs")
        with self._store.changed:
            if name not in self._store.jobs and request.allow_missing:
                create = run_v2.CreateJobRequest(
                    parent=str(names.location_of(name)),
                    job=request.job,
                    job_id=names.short(name),
                    validate_only=request.validate_only,
                )
                return self.create(create, principal)
            old, job = self.existing(name), with_defaults(request.job, name)
            check_etag(request.job.etag, old)
            limits.check_job(job)
            for field in SERVICE_SET_FIELDS:
                setattr(job, field, getattr(old, field))
            self._stamp(job, principal, generation=old.generation + 1)
            return self._put(job, validate_only=request.validate_only)

    def delete(self, request: run_v2.DeleteJobRequest) -> operations_pb2.Operation:
        with self._store.changed:
            job = run_v2.Job(self.existing(request.name))
            job.delete_time, job.expire_time = self._clock.now(), self._clock.now() + timedelta(days=30)
            operation = operations.finished(operations.new_name(names.location_of(job.name)), job)
            if not request.validate_only:
                self._store.operations[operation.name] = operation
                self._remove(job.name)
            return operation

    def check_exists(self, name: str) -> None:
        with self._store.changed:
            self.existing(name)

    def existing(self, name: str) -> run_v2.Job:
        job = self._store.jobs.get(placed(name, "jobs"))
        if job is None:
            raise not_found("JOB", names.short(name), names.location_of(name))
        return job

    def _stamp(self, job: run_v2.Job, principal: str, *, generation: int) -> None:
        now = self._clock.now()
        job.generation = job.observed_generation = generation
        job.update_time, job.last_modifier, job.etag = now, principal, f'"{uuid.uuid4().hex[:16]}"'
        ready, available = (
            run_v2.Condition(type_=type_, state=conditions.SUCCEEDED, last_transition_time=now)
            for type_ in ("Ready", "ResourcesAvailable")
        )
        job.terminal_condition, job.conditions = ready, [available]

    def _put(self, job: run_v2.Job, *, validate_only: bool) -> operations_pb2.Operation:
        missing = self._images.missing(job.template.template)
        if missing is not None:
            job.terminal_condition = run_v2.Condition(
                type_="Ready",
                state=conditions.FAILED,
                reason=CommonReason.CONTAINER_MISSING,
                message=conditions.image_missing_message(missing),
                last_transition_time=self._clock.now(),
            )
        operation = operations.finished(operations.new_name(names.location_of(job.name)), job)
        if missing is not None:
            operation.error.CopyFrom(status_pb2.Status(code=NOT_FOUND, message=job.terminal_condition.message))
        if validate_only:
            return operation
        self._store.jobs[job.name] = job
        self._store.operations[operation.name] = operation
        self._store.save(job)
        self._start(job)
        return operation

    def _remove(self, job_name: str) -> None:
        for record in self._store.executions_of(job_name):
            record.deleted = True
            if record.lifecycle is not None:
                record.lifecycle.cancel()
            del self._store.executions[record.execution.name]
            self._store.remove(record.execution.name)
        self._drop_policy(job_name)
        del self._store.jobs[job_name]
        self._store.remove(job_name)


def with_defaults(given: run_v2.Job, name: str) -> run_v2.Job:
    """Return the job as the service stores it: with defaults, and without fields that only the service sets."""
    if given.name not in ("", name):
        raise invalid(f"Violation in Job.name: got {given.name!r}, expected it to be empty or {name!r}.")
    job: run_v2.Job = output_only.prepare(given)
    # Clients such as Prefect read it from jobs that never ran, too.
    job.name, job.latest_created_execution = name, run_v2.ExecutionReference()
    job.template.task_count = job.template.task_count or 1
    _set_task_defaults(job.template.template)
    return job


def _set_task_defaults(template: run_v2.TaskTemplate) -> None:
    if not template.timeout:
        template.timeout = DEFAULT_TIMEOUT
    # A oneof: an explicit 0 differs from no value.
    if "max_retries" not in template:
        template.max_retries = DEFAULT_RETRIES
    for container in template.containers:
        set_default_limits(container)


def set_default_limits(container: run_v2.Container) -> None:
    limits_ = container.resources.limits
    defaults = GPU_LIMITS if GPU in limits_ else DEFAULT_LIMITS
    # Some releases of protobuf return an empty string from setdefault(), so test for the keys first.
    for key in defaults.keys() - limits_.keys():
        limits_[key] = defaults[key]


def set_latest_execution(job: run_v2.Job, execution: run_v2.Execution, status: Any) -> None:
    """Set the job's reference to its newest execution."""
    job.latest_created_execution = run_v2.ExecutionReference(
        name=names.short(execution.name), create_time=execution.create_time, completion_status=status
    )
