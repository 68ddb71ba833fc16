"""The Cloud Run Jobs of one project and region."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from google.api_core.exceptions import Aborted, AlreadyExists, NotFound
from google.cloud.run_v2.types import Condition, Job

from cloudrun_jobs.backends.cloudrun import clients
from cloudrun_jobs.backends.cloudrun.errors import ApiMethod, translate_errors
from cloudrun_jobs.deploy.cloudrun import fields
from cloudrun_jobs.deploy.cloudrun.store import CloudStore
from cloudrun_jobs.deploy.desired import OWNERSHIP_ANNOTATION, SharedFields
from cloudrun_jobs.deploy.plan import Change, Existing
from cloudrun_jobs.exceptions import CloudRunJobsError, ServiceError
from cloudrun_jobs.spec.ownership import OwnershipLabel

if TYPE_CHECKING:
    from google.api_core.operation import Operation

    from cloudrun_jobs.backends.cloudrun import CloudRunBackend

DEVELOPER, ACT_AS = "roles/run.developer", "roles/iam.serviceAccountUser on the job's service account"
CONFLICT_HINT = "It was {} since the jobs were listed; run the sync again."
LIST = ApiMethod(permission="run.jobs.list", role="roles/run.viewer")
CREATE = ApiMethod(
    permission="run.jobs.create",
    role=DEVELOPER,
    also=ACT_AS,
    hints={AlreadyExists: CONFLICT_HINT.format("created")},
)
UPDATE = ApiMethod(
    permission="run.jobs.update",
    role=DEVELOPER,
    also=ACT_AS,
    hints={NotFound: CONFLICT_HINT.format("deleted"), Aborted: CONFLICT_HINT.format("changed")},
)
DELETE = ApiMethod(permission="run.jobs.delete", role=DEVELOPER)
GET_SERVICE = ApiMethod(permission="run.services.get", role="roles/run.viewer")


class Jobs(CloudStore):
    list_method, delete_method = LIST, DELETE
    writes_per_minute = 180  # Newer projects allow 60; calls beyond that are rejected and retried.

    def __init__(self, backend: CloudRunBackend) -> None:
        super().__init__(backend, backend.parent, clients.jobs(backend.server))

    def create(self, change: Change) -> str:
        job = Job()
        _apply(change, job)
        self._write_job(change, CREATE, self._client.create_job, parent=self.parent, job_id=change.id, job=job)
        return ""

    def update(self, change: Change) -> str:
        """Write the whole job as it was listed, with the changes: UpdateJob has no mask."""
        before = change.existing.message if change.existing else Job()
        job = Job(before)
        _apply(change, job)
        after = self._write_job(change, UPDATE, self._client.update_job, job=job).metadata
        # Whether the service compares etags is not documented; that it counts generations is.
        if after.generation > before.generation + 1:
            return "this reverted a change that was made since the jobs were listed: check the job"
        return ""

    def service_fields(self, name: str) -> SharedFields:
        """Return the fields of a service that its jobs share."""
        full_name = f"{self.parent}/services/{name}"
        client = clients.services(self._backend.server)
        with translate_errors(full_name, GET_SERVICE, endpoint=self._backend.endpoint):
            template = self.call(client.get_service, name=full_name).template
        if (count := len(template.containers)) != 1:
            raise CloudRunJobsError(
                f"The service {name!r} has {count} containers; sidecars cannot be copied.",
                hint="Omit --from-service, and declare what the jobs need.",
            )
        return fields.shared(template.containers[0], template)

    def existing(self, job: Job) -> Existing:
        condition = job.terminal_condition
        failed = condition.state == Condition.State.CONDITION_FAILED
        return Existing(
            id=job.name.rpartition("/")[2],
            fields=fields.read(job),
            ownership=OwnershipLabel.read(job.annotations.get(OWNERSHIP_ANNOTATION, "")),
            trouble=f"not ready: {condition.message}" if failed else "",
            message=job,
        )

    def _write_job(self, change: Change, method: ApiMethod, call: Any, **request: Any) -> Operation:
        operation: Operation = self.write(change, method, call, **request)
        # The next sync shows later errors, which are in the job's condition. Polling would cost calls per job.
        if operation.operation.HasField("error"):
            raise ServiceError(f"{self.name(change)}: {operation.operation.error.message}")
        return operation


def _apply(change: Change, job: Job) -> None:
    for field in change.fields:
        if field.name != "ownership":
            fields.write(job, field.name, field.new)
    if change.desired is not None:
        job.annotations = {**job.annotations, OWNERSHIP_ANNOTATION: str(change.desired.ownership)}
