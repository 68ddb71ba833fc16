"""The Cloud Run Jobs of one project and region; a store of `plans`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from google.api_core.exceptions import Aborted, AlreadyExists, NotFound
from google.cloud.run_v2.types import (
    Condition,
    CreateJobRequest,
    DeleteJobRequest,
    GetServiceRequest,
    Job,
    ListJobsRequest,
    UpdateJobRequest,
)

from cloudrun_jobs.backends.cloudrun import clients
from cloudrun_jobs.backends.cloudrun.errors import ApiMethod, translate_errors
from cloudrun_jobs.backends.cloudrun.quota import WHEN_EXHAUSTED, Quota
from cloudrun_jobs.deploy.cloudrun import fields
from cloudrun_jobs.deploy.cloudrun.field_values import ANNOTATION
from cloudrun_jobs.deploy.plan import Change, Existing, OwnershipLabel
from cloudrun_jobs.exceptions import CloudRunJobsError, ServiceError

if TYPE_CHECKING:
    from google.api_core.operation import Operation

    from cloudrun_jobs.backends.cloudrun import CloudRunBackend

PAGE_SIZE = 500
WRITES_PER_MINUTE = 180  # Or 60 in newer projects, where those beyond it are refused, and tried again.
DEVELOPER, ACT_AS = "roles/run.developer", "roles/iam.serviceAccountUser on the job's service account"
CHANGED = "It was {} since the jobs were listed; run the sync again."
LIST = ApiMethod(permission="run.jobs.list", role="roles/run.viewer")
CREATE = ApiMethod(
    permission="run.jobs.create", role=DEVELOPER, also=ACT_AS, hints={AlreadyExists: CHANGED.format("made")}
)
UPDATE = ApiMethod(
    permission="run.jobs.update",
    role=DEVELOPER,
    also=ACT_AS,
    hints={NotFound: CHANGED.format("deleted"), Aborted: CHANGED.format("changed")},
)
DELETE = ApiMethod(permission="run.jobs.delete", role=DEVELOPER)
GET_SERVICE = ApiMethod(permission="run.services.get", role="roles/run.viewer")


class Jobs:
    def __init__(self, backend: CloudRunBackend) -> None:
        self.parent = backend.place
        self._backend = backend
        self._quota = Quota(WRITES_PER_MINUTE)

    def listed(self) -> list[Existing]:
        """Return all jobs, whoever made them, with one call a page."""
        request = ListJobsRequest(parent=self.parent, page_size=PAGE_SIZE)
        with translate_errors(self.parent, LIST, endpoint=self._backend.endpoint):
            jobs = self._client().list_jobs(request, retry=WHEN_EXHAUSTED, timeout=self._backend.rpc_timeout)
            return [_found(job) for job in jobs]

    def create(self, change: Change) -> str:
        job = Job()
        _write(job, change)
        request = CreateJobRequest(parent=self.parent, job_id=change.id, job=job)
        self._write("create_job", request, change, CREATE)
        return ""

    def update(self, change: Change) -> str:
        """Write the whole job back, as it was listed but for the change: UpdateJob has no mask."""
        before = change.found.origin if change.found else Job()
        job = Job(before)
        _write(job, change)
        after = self._write("update_job", UpdateJobRequest(job=job), change, UPDATE).metadata
        # Whether the service compares etags is not documented; that it counts changes is.
        if after.generation > before.generation + 1:
            return "somebody changed it meanwhile, and what they changed is undone: look at it"
        return ""

    def delete(self, change: Change) -> str:
        try:
            self._write("delete_job", DeleteJobRequest(name=self._name(change)), change, DELETE)
        except ServiceError as error:
            if not isinstance(error.__cause__, NotFound):
                raise
            return "it was deleted already"
        return ""

    def of_service(self, name: str) -> dict[str, Any]:
        """Return what a service has that its jobs need as well, as fields."""
        full_name = f"{self.parent}/services/{name}"
        client, request = clients.services(self._backend.endpoint), GetServiceRequest(name=full_name)
        with translate_errors(full_name, GET_SERVICE, endpoint=self._backend.endpoint):
            service = client.get_service(request, retry=WHEN_EXHAUSTED, timeout=self._backend.rpc_timeout)
        if (count := len(service.template.containers)) != 1:
            raise CloudRunJobsError(
                f"The service {name!r} has {count} containers, and sidecars cannot be copied.",
                hint="Leave --from-service out, and declare what the jobs need.",
            )
        return fields.of_service(service)

    def _write(self, method: str, request: Any, change: Change, call: ApiMethod) -> Operation:
        self._quota.wait_for_quota()
        with translate_errors(self._name(change), call, endpoint=self._backend.endpoint):
            operation: Operation = getattr(self._client(), method)(
                request, retry=WHEN_EXHAUSTED, timeout=self._backend.rpc_timeout
            )
        # What goes wrong later is told by the job itself, at the next sync: waiting would cost a call each.
        if operation.operation.HasField("error"):
            raise ServiceError(f"{self._name(change)}: {operation.operation.error.message}")
        return operation

    def _client(self) -> Any:
        return clients.jobs(self._backend.endpoint)

    def _name(self, change: Change) -> str:
        return f"{self.parent}/jobs/{change.id}"


def _found(job: Job) -> Existing:
    condition = job.terminal_condition
    failed = condition.state == Condition.State.CONDITION_FAILED
    return Existing(
        id=job.name.rpartition("/")[2],
        fields=fields.read(job),
        mark=OwnershipLabel.read(job.annotations.get(ANNOTATION, "")),
        trouble=f"not ready: {condition.message}" if failed else "",
        origin=job,
    )


def _write(job: Job, change: Change) -> None:
    for field in change.fields:
        if field.name != "mark":
            fields.write(job, field.name, field.new)
    if change.declared is not None:
        job.annotations = {**job.annotations, ANNOTATION: str(change.declared.mark)}
