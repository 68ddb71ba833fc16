"""The key under which a caller asks for a run, in the form in which it is kept."""

from __future__ import annotations

from hashlib import sha256

from cloudrun_jobs.exceptions import InvalidArguments
from cloudrun_jobs.models.values import storable

MAX_LENGTH = 200
DIGITS = 32


def storage_key(command: str, key: object) -> str:
    """Return what tells the key from all others in every database. Raises `InvalidArguments`.

    Some compare text without its case, accents and last spaces, so it ends with a digest.
    """
    if not isinstance(key, str) or not 1 <= len(key) <= MAX_LENGTH or storable(key) != key:
        got = f"{key!r:.100}" if isinstance(key, str) else f"{type(key).__name__} {key!r:.100}"
        words = f"{command}: expected an idempotency_key of 1 to {MAX_LENGTH} characters of text, got {got}."
        raise InvalidArguments(words, hint="Make it of what tells runs apart, without NUL.")
    return f"{key[: MAX_LENGTH - DIGITS - 1]} {sha256(key.encode()).hexdigest()[:DIGITS]}"
