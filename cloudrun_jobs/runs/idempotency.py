"""Idempotency keys, as they are stored."""

from __future__ import annotations

from hashlib import sha256

from cloudrun_jobs.exceptions import InvalidArguments
from cloudrun_jobs.models.values import storable

MAX_LENGTH = 200  # characters
DIGEST_LENGTH = 32  # hexadecimal digits


def storage_key(command: str, key: object) -> str:
    """Return the key in a form that no database confuses with another. Raises `InvalidArguments`.

    Some databases ignore case, accents and trailing spaces when they compare text, so it ends with a digest.
    """
    if not isinstance(key, str) or not 1 <= len(key) <= MAX_LENGTH or storable(key) != key:
        got = f"{key!r:.100}" if isinstance(key, str) else f"{type(key).__name__} {key!r:.100}"
        message = f"{command}: expected an idempotency_key of 1 to {MAX_LENGTH} characters of text, got {got}."
        hint = "Build the key from values that identify the run; NUL characters are not allowed."
        raise InvalidArguments(message, hint=hint)
    return f"{key[: MAX_LENGTH - DIGEST_LENGTH - 1]} {sha256(key.encode()).hexdigest()[:DIGEST_LENGTH]}"
