"""The Scheduler jobs of one project and region."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any, cast

from google.api_core.exceptions import InvalidArgument, NotFound
from google.cloud.scheduler_v1.types import HttpMethod, Job, RetryConfig
from google.protobuf.field_mask_pb2 import FieldMask

from cloudrun_jobs.backends.cloudrun import clients, targets
from cloudrun_jobs.backends.cloudrun.errors import ApiMethod
from cloudrun_jobs.backends.cloudrun.reservations import ACT_AS, ADMIN, CREATE, DELETE
from cloudrun_jobs.deploy.cloudrun.store import CloudStore
from cloudrun_jobs.deploy.plan import Change, Existing, flatten
from cloudrun_jobs.spec.ownership import OwnershipLabel
from cloudrun_jobs.spec.schedule import RETRY_FIELDS

if TYPE_CHECKING:
    from cloudrun_jobs.backends.cloudrun import CloudRunBackend
    from cloudrun_jobs.deploy.desired import DesiredSchedulerJob

REGION_HINT = (
    "Cloud Scheduler may not serve this region: put one that `gcloud scheduler locations list` names into"
    " CLOUDRUN_JOBS['OPTIONS']['scheduler_region']."
)
LIST = ApiMethod(
    permission="cloudscheduler.jobs.list",
    role="roles/cloudscheduler.viewer",
    hints={NotFound: REGION_HINT, InvalidArgument: REGION_HINT},
)
UPDATE = ApiMethod(
    permission="cloudscheduler.jobs.update",
    role=ADMIN,
    also=ACT_AS,
    hints={NotFound: "It was deleted since the Scheduler jobs were listed; run the sync again."},
)
# Cloud Scheduler's defaults, where they are not 0.
DEFAULT_ATTEMPT_DEADLINE = timedelta(minutes=3)
DEFAULT_RETRIES = {
    "min_backoff_duration": timedelta(seconds=5),
    "max_backoff_duration": timedelta(hours=1),
    "max_doublings": 5,
}
PATHS = {
    "ownership": "description",
    "url": "http_target.uri",
    "method": "http_target.http_method",
    "content_type": "http_target.headers",
    "args": "http_target.body",
    "tick": "http_target.body",
    "to_service": "http_target.body",
}
CLOUD_PLATFORM = "https://www.googleapis.com/auth/cloud-platform"  # The default scope.
TROUBLES = {
    Job.State.UPDATE_FAILED: "its last update failed and is repeated",
    Job.State.DISABLED: "Cloud Scheduler disabled it",
}


class Schedules(CloudStore):
    list_method, delete_method = LIST, DELETE
    writes_per_minute = 500  # https://cloud.google.com/scheduler/quotas

    def __init__(self, backend: CloudRunBackend) -> None:
        super().__init__(backend, backend.scheduler_parent, clients.scheduler(backend.server))

    def create(self, change: Change) -> str:
        self.write(change, CREATE, self._client.create_job, parent=self.parent, job=self._message(change))
        return ""

    def update(self, change: Change) -> str:
        job = self._message(change)
        mask = FieldMask(paths=sorted({_path(field.name, job) for field in change.fields}))
        self.write(change, UPDATE, self._client.update_job, job=job, update_mask=mask)
        return ""

    def existing(self, job: Job) -> Existing:
        failed = job.state == Job.State.UPDATE_FAILED
        return Existing(
            id=job.name.rpartition("/")[2],
            # The fields after a failed update are unknown, so all are written again.
            fields={} if failed else _read_fields(job),
            ownership=OwnershipLabel.read(job.description),
            paused=job.state == Job.State.PAUSED,
            trouble=TROUBLES.get(job.state, ""),
            message=job,
        )

    def _message(self, change: Change) -> Job:
        """Build the whole Scheduler job. The mask of an update selects the fields that change."""
        desired = cast("DesiredSchedulerJob", change.desired)
        # A mask selects all headers or none.
        others = change.existing.message.http_target.headers if change.existing else {}
        account, audience = desired.token.service_account, desired.token.audience
        target = {
            "uri": desired.url,
            "http_method": desired.method,
            "headers": {**others, "Content-Type": desired.content_type},
            "body": desired.body,
            "oauth_token": None if audience else {"service_account_email": account},
            "oidc_token": {"service_account_email": account, "audience": audience} if audience else None,
        }
        return Job(
            name=self.name(change),
            description=str(desired.ownership),
            schedule=desired.schedule,
            time_zone=desired.time_zone,
            http_target=target,
            # A field that the code declares no longer gets the service's default.
            attempt_deadline=desired.attempt_deadline or DEFAULT_ATTEMPT_DEADLINE,
            retry_config=RetryConfig(**{**DEFAULT_RETRIES, **desired.retry_config}),
        )


def _read_fields(job: Job) -> dict[str, Any]:
    target = job.http_target
    return flatten(
        {
            "schedule": job.schedule,
            "time_zone": job.time_zone,
            "url": target.uri,
            "method": HttpMethod(target.http_method).name,
            "content_type": target.headers.get("Content-Type", ""),
            "token": _read_token(job),
            **targets.decode_body(target.body),
            "attempt_deadline": job.attempt_deadline,
            "retry_config": {name: getattr(job.retry_config, name) for name in RETRY_FIELDS},
        }
    )


def _read_token(job: Job) -> targets.AuthToken | None:
    target = job.http_target
    if "oidc_token" in target:
        return targets.AuthToken(target.oidc_token.service_account_email, target.oidc_token.audience)
    if "oauth_token" not in target:
        return None
    # Cloud Run rejects a token of another scope.
    scope = "" if target.oauth_token.scope == CLOUD_PLATFORM else target.oauth_token.scope
    return targets.AuthToken(target.oauth_token.service_account_email, scope=scope)


def _path(field: str, job: Job) -> str:
    """Return the path of a field in the message, for the update's mask."""
    if field == "token":
        return "http_target.oidc_token" if "oidc_token" in job.http_target else "http_target.oauth_token"
    return PATHS.get(field, field)
