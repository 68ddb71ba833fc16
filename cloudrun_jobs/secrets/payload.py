"""Validate the name, the version and the value of a secret before anything is sent."""

from __future__ import annotations

import re
from typing import NamedTuple

from cloudrun_jobs.argv.secret_ref import SecretRef
from cloudrun_jobs.exceptions import InvalidSecret

MAX_BYTES = 64 * 1024  # Secret Manager's limit of a version.
NAME_PATTERN = re.compile(r"[A-Za-z0-9_-]{1,255}", re.ASCII)
NAME_CHARACTERS = "letters, digits, '-' and '_'"
REFERENCE_EXAMPLE = f"Write 'partner-token' or 'partner-token:3': {NAME_CHARACTERS}, and a version or none."


class Payload:
    """The bytes of a version. `repr()` hides them, so that no debug page or traceback shows them."""

    __slots__ = ("data",)

    def __init__(self, data: bytes) -> None:
        self.data = data

    def __repr__(self) -> str:
        return "[secret]"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Payload) and self.data == other.data

    __hash__ = None  # type: ignore[assignment]


class Version(NamedTuple):
    """One version of a secret."""

    number: int
    payload: Payload


def reference(secret: str | SecretRef) -> tuple[str, int | None]:
    """Return the name and the number of the version, None for the newest. Raises `InvalidSecret`."""
    given = secret.reference if isinstance(secret, SecretRef) else secret
    try:
        parsed = SecretRef(given)
        return parsed.name, None if parsed.version == "latest" else int(parsed.version)
    except (TypeError, ValueError):
        pass
    # The error must not show a secret that was passed by mistake.
    raise InvalidSecret("secrets: expected the name of a secret, got something else.", hint=REFERENCE_EXAMPLE)


def checked_name(name: str) -> str:
    """Return the name of a secret, which has no version. Raises `InvalidSecret`."""
    if not isinstance(name, str) or not NAME_PATTERN.fullmatch(name):
        message = "secrets: expected the name of a secret without a version, got something else."
        raise InvalidSecret(message, hint=f"Write 'partner-token': {NAME_CHARACTERS}.")
    return name


def problem_of(value: object) -> str:
    """Return the reason why a value is invalid, or "" if it is valid."""
    size = _size(value)
    if isinstance(size, str):
        return size
    if not size:
        return "expected a value of at least one byte, got an empty one"
    if size > MAX_BYTES:
        return f"expected a value of at most {MAX_BYTES} bytes (64 KiB), got {size} bytes"
    return ""


def _size(value: object) -> int | str:
    if isinstance(value, bytes | bytearray):
        return len(value)
    if not isinstance(value, str):
        return f"expected a value that is str or bytes, got {type(value).__name__}"
    try:
        return len(value.encode())
    except UnicodeEncodeError:
        return "expected text that UTF-8 can encode, got a lone surrogate"


def payload_of(value: str | bytes | bytearray) -> Payload:
    return Payload(value.encode() if isinstance(value, str) else bytes(value))
