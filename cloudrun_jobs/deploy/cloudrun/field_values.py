"""Values of fields that no plain type has, without Google's clients."""

from __future__ import annotations

from dataclasses import dataclass

ANNOTATION = "cloudrun-jobs/managed"  # Of a job: holds our mark.
CLOUD_SQL = "/cloudsql"  # Where the sockets of instances are, by convention of Google's own tools.


@dataclass(frozen=True, slots=True)
class Secret:
    """A variable filled from Secret Manager."""

    name: str
    version: str = "latest"

    def __str__(self) -> str:
        return f"secret {self.name}:{self.version}"


@dataclass(frozen=True, slots=True)
class SecretFiles:
    """A volume of secrets, as the service has it."""

    path: str
    message: bytes

    def __str__(self) -> str:
        return f"secrets in {self.path}"
