"""The entries of Cloud Scheduler, as flat fields."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from google.api_core.exceptions import AlreadyExists, InvalidArgument, NotFound
from google.cloud.scheduler_v1.types import (
    CreateJobRequest,
    DeleteJobRequest,
    HttpMethod,
    Job,
    ListJobsRequest,
    OAuthToken,
    OidcToken,
    RetryConfig,
    UpdateJobRequest,
)
from google.protobuf.field_mask_pb2 import FieldMask

from cloudrun_jobs.backends.cloudrun import clients, targets
from cloudrun_jobs.backends.cloudrun.errors import ApiMethod, translate_errors
from cloudrun_jobs.backends.cloudrun.quota import WHEN_EXHAUSTED, Quota
from cloudrun_jobs.backends.cloudrun.targets import AuthToken
from cloudrun_jobs.deploy.plan import Change, Existing, OwnershipLabel
from cloudrun_jobs.exceptions import ServiceError

if TYPE_CHECKING:
    from cloudrun_jobs.backends.cloudrun import CloudRunBackend

PAGE_SIZE = 500
WRITES_PER_MINUTE = 500  # https://cloud.google.com/scheduler/quotas
ELSEWHERE = (
    "Does Cloud Scheduler serve this region? `gcloud scheduler locations list` names those it does: put one into"
    " CLOUDRUN_JOBS['OPTIONS']['scheduler_region']."
)
ADMIN, ACT_AS = "roles/cloudscheduler.admin", "roles/iam.serviceAccountUser on the entry's service account"
LIST = ApiMethod(
    permission="cloudscheduler.jobs.list",
    role="roles/cloudscheduler.viewer",
    hints={NotFound: ELSEWHERE, InvalidArgument: ELSEWHERE},
)
CREATE = ApiMethod(
    permission="cloudscheduler.jobs.create",
    role=ADMIN,
    also=ACT_AS,
    hints={AlreadyExists: "It was made since the entries were listed; run the sync again."},
)
UPDATE = ApiMethod(
    permission="cloudscheduler.jobs.update",
    role=ADMIN,
    also=ACT_AS,
    hints={NotFound: "It was deleted since the entries were listed; run the sync again."},
)
DELETE = ApiMethod(permission="cloudscheduler.jobs.delete", role=ADMIN)

CONTENT_TYPE = "Content-Type"
DEFAULTS = {
    "attempt_deadline": timedelta(minutes=3),
    "retry_count": 0,
    "max_retry_duration": timedelta(0),
    "min_backoff_duration": timedelta(seconds=5),
    "max_backoff_duration": timedelta(hours=1),
    "max_doublings": 5,
}
RETRIES = tuple(DEFAULTS)[1:]
PATHS = {
    "mark": "description",
    "url": "http_target.uri",
    "method": "http_target.http_method",
    "content_type": "http_target.headers",
    "args": "http_target.body",
    "tick": "http_target.body",
    "to_service": "http_target.body",
    **{name: f"retry_config.{name}" for name in RETRIES},
}
TROUBLES = {
    Job.State.UPDATE_FAILED: "its last update failed, and is made again",
    Job.State.DISABLED: "Cloud Scheduler disabled it",
}


class Schedules:
    """The entries of one project and region; a store of `plans`."""

    def __init__(self, backend: CloudRunBackend) -> None:
        self.parent = backend.scheduler_parent
        self._backend = backend
        self._quota = Quota(WRITES_PER_MINUTE)

    def listed(self) -> list[Existing]:
        """Return all entries, whoever made them, with one call for each 500."""
        request = ListJobsRequest(parent=self.parent, page_size=PAGE_SIZE)
        with translate_errors(self.parent, LIST, endpoint=self._backend.endpoint):
            jobs = self._client().list_jobs(request, retry=WHEN_EXHAUSTED, timeout=self._backend.rpc_timeout)
            return [_found(job) for job in jobs]

    def create(self, change: Change) -> str:
        job = self._message(change)
        self._write("create_job", CreateJobRequest(parent=self.parent, job=job), job.name, CREATE)
        return ""

    def update(self, change: Change) -> str:
        job = self._message(change)
        mask = FieldMask(paths=sorted({_path(field.name, job) for field in change.fields}))
        self._write("update_job", UpdateJobRequest(job=job, update_mask=mask), job.name, UPDATE)
        return ""

    def delete(self, change: Change) -> str:
        name = self._name(change)
        try:
            self._write("delete_job", DeleteJobRequest(name=name), name, DELETE)
        except ServiceError as error:
            if not isinstance(error.__cause__, NotFound):
                raise
            return "it was deleted already"
        return ""

    def _write(self, method: str, request: Any, name: str, call: ApiMethod) -> None:
        self._quota.wait_for_quota()
        with translate_errors(name, call, endpoint=self._backend.endpoint):
            getattr(self._client(), method)(request, retry=WHEN_EXHAUSTED, timeout=self._backend.rpc_timeout)

    def _client(self) -> Any:
        return clients.scheduler(self._backend.endpoint)

    def _name(self, change: Change) -> str:
        return f"{self.parent}/jobs/{change.id}"

    def _message(self, change: Change) -> Job:
        """Build the entry as declared; of an update, a mask says what of it counts."""
        job = Job(name=self._name(change))
        if change.declared is not None:
            _write_fields(job, change.declared.fields)
            job.description = str(change.declared.mark)
        if change.found is not None:
            # A mask takes all headers or none.
            job.http_target.headers = {**change.found.origin.http_target.headers, **job.http_target.headers}
        return job


def _found(job: Job) -> Existing:
    failed = job.state == Job.State.UPDATE_FAILED
    return Existing(
        id=job.name.rpartition("/")[2],
        # What an update that failed left behind is not known: all of it is written again.
        fields={} if failed else _read_fields(job),
        mark=OwnershipLabel.read(job.description),
        paused=job.state == Job.State.PAUSED,
        trouble=TROUBLES.get(job.state, ""),
        origin=job,
    )


def _read_fields(job: Job) -> dict[str, Any]:
    target = job.http_target
    return {
        "schedule": job.schedule,
        "time_zone": job.time_zone,
        "url": target.uri,
        "method": HttpMethod(target.http_method).name,
        "content_type": target.headers.get(CONTENT_TYPE, ""),
        "token": _read_token(job),
        **targets.decode_body(target.body),
        "attempt_deadline": job.attempt_deadline,
        **{name: getattr(job.retry_config, name) for name in RETRIES},
    }


def _write_fields(job: Job, fields: Mapping[str, Any]) -> None:
    job.schedule, job.time_zone = fields["schedule"], fields["time_zone"]
    target = job.http_target
    target.uri, target.http_method = fields["url"], fields["method"]
    target.headers = {CONTENT_TYPE: fields["content_type"]}
    _write_token(job, fields["token"])
    body = targets.tick_body(fields["args"], fields["tick"], to_service=fields["to_service"])
    target.body = targets.encode_body(body)
    # Once more the service's own where the code says nothing: of a change, a mask tells which of them count.
    delivery = {**DEFAULTS, **fields}
    job.attempt_deadline = delivery["attempt_deadline"]
    job.retry_config = RetryConfig(**{name: delivery[name] for name in RETRIES})


def _read_token(job: Job) -> AuthToken | None:
    target = job.http_target
    if "oidc_token" in target:
        return AuthToken(target.oidc_token.service_account_email, target.oidc_token.audience)
    return AuthToken(target.oauth_token.service_account_email) if "oauth_token" in target else None


def _write_token(job: Job, token: AuthToken) -> None:
    email = token.service_account
    if token.audience:
        job.http_target.oidc_token = OidcToken(service_account_email=email, audience=token.audience)
    else:
        job.http_target.oauth_token = OAuthToken(service_account_email=email)


def _path(field: str, job: Job) -> str:
    """Return where a field is in the message, for the update's mask."""
    if field == "token":
        return "http_target.oidc_token" if "oidc_token" in job.http_target else "http_target.oauth_token"
    return PATHS.get(field, field)
