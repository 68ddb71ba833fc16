"""The errors of the emulated services, with the messages of the real ones."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import grpc

if TYPE_CHECKING:
    from cloudrun_jobs.emulator.names import Location

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

    def __init__(self, code: str, message: str) -> None:
        if code not in HTTP_STATUS:
            expected = ", ".join(HTTP_STATUS)
            raise ValueError(f"expected a status code such as {expected}, got {code!r}")
        super().__init__(message)
        self.code = code
        self.message = message

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

    def body(self) -> bytes:
        error = {"code": self.http_status, "message": self.message, "status": self.code}
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


def already_exists(resource_id: str) -> ServiceError:
    return ServiceError("ALREADY_EXISTS", f"Resource '{resource_id}' already exists.")


def permission_denied(permission: str, resource: str) -> ServiceError:
    preposition = "for" if permission.startswith("secretmanager.") else "on"
    return ServiceError(
        "PERMISSION_DENIED",
        f"Permission '{permission}' denied {preposition} resource '{resource}' (or it may not exist).",
    )


def quota_exceeded(method: str) -> ServiceError:
    metric = "Job run requests" if method == "Jobs.RunJob" else "Write requests"
    return ServiceError(
        "RESOURCE_EXHAUSTED",
        f"Quota exceeded for quota metric '{metric}' and limit '{metric} per minute per region' "
        "of service 'run.googleapis.com'.",
    )
