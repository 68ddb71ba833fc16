"""Read and update secrets."""

from __future__ import annotations

from cloudrun_jobs.argv.secret_ref import SecretRef


def read(secret: str | SecretRef) -> str:
    """Return the value of a secret as text: `read("partner-token")`, or a version, `read("partner-token:3")`."""
    raise NotImplementedError


def read_bytes(secret: str | SecretRef) -> bytes:
    """Return the value of a secret; see `read()`."""
    raise NotImplementedError


def update(
    name: str, value: str | bytes, *, expected: int | None = None, create: bool = False, keep: int | None = None
) -> int:
    """Add a version to a secret and return its number."""
    raise NotImplementedError
