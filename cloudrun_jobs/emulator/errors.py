"""The errors of the emulated services, with the messages of the real ones."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import grpc
from google.protobuf import json_format
from google.rpc import error_details_pb2, status_pb2  # noqa: F401 - The first one registers the types of details.

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cloudrun_jobs.emulator.names import Location

API_PATH = re.compile(r"/(?:apis|v[1-9][a-z0-9]*/(?:projects|folders|organizations|billingAccounts))/.")
HTTP_STATUS = {
    "CANCELLED": 499,
    "UNKNOWN": 500,
    "INVALID_ARGUMENT": 400,
    "DEADLINE_EXCEEDED": 504,
    "NOT_FOUND": 404,
    "ALREADY_EXISTS": 409,
    "PERMISSION_DENIED": 403,
    "UNAUTHENTICATED": 401,
    "RESOURCE_EXHAUSTED": 429,
    "FAILED_PRECONDITION": 400,
    "ABORTED": 409,
    "OUT_OF_RANGE": 400,
    "UNIMPLEMENTED": 501,
    "INTERNAL": 500,
    "UNAVAILABLE": 503,
    "DATA_LOSS": 500,
}


class ServiceError(Exception):
    """An RPC that failed. Each frontend translates the status into its own protocol."""

    def __init__(self, code: str, message: str, details: Sequence[dict[str, Any]] = ()) -> None:
        if code not in HTTP_STATUS:
            expected = ", ".join(HTTP_STATUS)
            raise ValueError(f"expected a status code such as {expected}, got {code!r}")
        super().__init__(message)
        self.code = code
        self.message = message
        self.details = details  # Messages of google.rpc in JSON.

    @property
    def grpc_code(self) -> Any:
        return grpc.StatusCode[self.code]

    @property
    def number(self) -> int:
        """The canonical number of the status, as in ``google.rpc.Status``."""
        return int(self.grpc_code.value[0])

    @property
    def http_status(self) -> int:
        return HTTP_STATUS[self.code]

    def status(self) -> bytes:
        """Return the error with its details as a serialised ``google.rpc.Status``."""
        content = {"code": self.number, "message": self.message, "details": list(self.details)}
        return bytes(json_format.ParseDict(content, status_pb2.Status()).SerializeToString())

    def body(self) -> bytes:
        error: dict[str, Any] = {"code": self.http_status, "message": self.message, "status": self.code}
        if self.details:
            error["details"] = self.details
        return json.dumps({"error": error}).encode()


def invalid(message: str) -> ServiceError:
    return ServiceError("INVALID_ARGUMENT", message)


def failed_precondition(message: str) -> ServiceError:
    return ServiceError("FAILED_PRECONDITION", message)


def not_found(kind: str, resource_id: str, location: Location) -> ServiceError:
    return ServiceError(
        "NOT_FOUND",
        f"Resource '{resource_id}' of kind '{kind}' in region '{location.region}' "
        f"in project '{location.project}' does not exist.",
    )


def not_served(verb: str, path: str) -> ServiceError:
    """Return the error for a URL that no rule matches: below the version of an API, it may be that of a method."""
    if API_PATH.match(path):
        return ServiceError("UNIMPLEMENTED", f"The emulator does not serve {verb} {path}.")
    return ServiceError("NOT_FOUND", f"The requested URL {path} was not found on this server.")


def already_exists(resource_id: str) -> ServiceError:
    return ServiceError("ALREADY_EXISTS", f"Resource '{resource_id}' already exists.")


def permission_denied(permission: str, resource: str) -> ServiceError:
    service = permission.partition(".")[0]
    if service in ("cloudscheduler", "cloudtasks"):
        return _principal_lacks(permission, resource)
    if service == "resourcemanager":
        return ServiceError("PERMISSION_DENIED", "The caller does not have permission")
    preposition = "for" if service == "secretmanager" else "on"
    return ServiceError(
        "PERMISSION_DENIED",
        f"Permission '{permission}' denied {preposition} resource '{resource}' (or it may not exist).",
    )


def act_as_denied(email: str, method: str) -> ServiceError:
    """The caller may not attach this service account to a job."""
    if method.startswith(("CloudScheduler.", "CloudTasks.")):
        return _principal_lacks("iam.serviceAccounts.actAs", email)
    return ServiceError(
        "PERMISSION_DENIED",
        f"Permission 'iam.serviceaccounts.actAs' denied on service account {email} (or it may not exist).",
    )


def _principal_lacks(permission: str, resource: str) -> ServiceError:
    return ServiceError(
        "PERMISSION_DENIED",
        f'The principal (user or service account) lacks IAM permission "{permission}" for the resource '
        f'"{resource}" (or the resource may not exist).',
    )


def quota_exceeded(method: str) -> ServiceError:
    metric = "Job run requests" if method == "Jobs.RunJob" else "Write requests"
    return ServiceError(
        "RESOURCE_EXHAUSTED",
        f"Quota exceeded for quota metric '{metric}' and limit '{metric} per minute per region' "
        "of service 'run.googleapis.com'.",
    )
