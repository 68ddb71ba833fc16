"""The keys of locks: short, ASCII, and different for different locks."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Set
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from functools import lru_cache
from hashlib import sha256
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from math import isfinite
from pathlib import PurePath
from typing import Any, NamedTuple
from uuid import UUID
from zoneinfo import ZoneInfo

from django.utils.functional import Promise

from cloudrun_jobs import conf
from cloudrun_jobs.argv.redaction import mask
from cloudrun_jobs.conf import Settings

PREFIX = "crj1"  # Change the number whenever the computation of keys changes.
MAX_LABEL_LENGTH = 120

# The JSON form of common types of options.
ENCODERS: dict[type, Callable[[Any], object]] = {
    Enum: lambda member: [type(member).__qualname__, member.name],
    datetime: datetime.isoformat,
    date: date.isoformat,
    time: time.isoformat,
    timedelta: str,
    timezone: repr,
    ZoneInfo: str,
    Decimal: str,
    Fraction: str,
    complex: repr,
    UUID: str,
    PurePath: str,
    bytes: bytes.hex,
    bytearray: bytearray.hex,
    range: lambda numbers: [numbers.start, numbers.stop, numbers.step],
    re.Pattern: lambda pattern: [pattern.pattern, pattern.flags],
    Promise: str,  # A lazy translation.
    **dict.fromkeys((IPv4Address, IPv6Address, IPv4Network, IPv6Network), str),
}


class LockName(NamedTuple):
    """A lock's key, and its name for people."""

    key: str
    label: str

    def part(self, path: str, label: str) -> LockName:
        """Return the name of a lock below this one."""
        return LockName(key=f"{self.key}/{path}", label=f"{self.label} {label}")


def lock_name(name: str, settings: Settings | None = None) -> LockName:
    """Return the name of a `LockManager`'s lock."""
    if not isinstance(name, str) or not name:
        raise ValueError(f"A lock's name: expected a string, got {name!r}.")
    settings = settings or conf.load()
    return _named(name, mask(name), settings.project, settings.environment)


@lru_cache(maxsize=1000)
def _named(name: str, shown: str, project: str, environment: str) -> LockName:
    return LockName(key=_key(shown, ["name", name], project, environment), label=_printable(shown))


def for_job(command: str) -> LockName:
    """Return the name of the lock that counts a job's executions."""
    settings = conf.load()
    return _of_job(command, settings.project, settings.environment)


@lru_cache(maxsize=1000)
def _of_job(command: str, project: str, environment: str) -> LockName:
    return LockName(key=_key(command, ["job", command], project, environment), label=_printable(command))


def for_arguments(command: str, selected: object) -> LockName:
    """Return the name of the lock of a job with these arguments.

    The arguments are hashed: they may be personal data. Raises `TypeError` or `ValueError` for a value that has
    no JSON form.
    """
    settings = conf.load()
    key = _key(command, ["arguments", command, selected], settings.project, settings.environment)
    return LockName(key=key, label=f"{_printable(command)}#{key[-8:]}")


def has_json_form(value: object) -> bool:
    """Return True if the value, with all that it contains, can be in a key."""
    try:
        _digest([value])
    except (TypeError, ValueError, RecursionError):
        return False
    return True


def prefix() -> str:
    """Return the prefix of all keys of this project and environment."""
    settings = conf.load()
    return _prefix(settings.project, settings.environment)


@lru_cache(maxsize=100)
def _prefix(project: str, environment: str) -> str:
    return f"{PREFIX}:{_digest([project, environment])[:8]}:"


def _key(readable: str, identity: list[object], project: str, environment: str) -> str:
    digest = _digest([project, environment, *identity])
    return f"{_prefix(project, environment)}{re.sub(r'[^a-z0-9_-]+', '-', readable.lower())[:60]}:{digest[:32]}"


def _digest(identity: list[object]) -> str:
    text = json.dumps(_sorted(identity), default=_in_json, allow_nan=False)
    return sha256(text.encode()).hexdigest()


def _sorted(value: Any) -> Any:
    """Return mappings as sorted pairs: JSON would take the key 1 for the key "1"."""
    if isinstance(value, Mapping):
        pairs = [[_sorted(key), _sorted(item)] for key, item in value.items()]
        return {"pairs": sorted(pairs, key=lambda pair: json.dumps(pair, default=_in_json))}
    if isinstance(value, list | tuple):
        return [_sorted(item) for item in value]
    if isinstance(value, Set):
        return {"set": sorted((_sorted(item) for item in value), key=lambda i: json.dumps(i, default=_in_json))}
    if isinstance(value, float) and not isfinite(value):
        return {"float": float.__repr__(value)}
    return value


def _in_json(value: object) -> object:
    for kind, encode in ENCODERS.items():
        if isinstance(value, kind):
            return {kind.__name__: encode(value)}
    raise TypeError(f"{value!r} has no JSON form")


def _printable(name: str) -> str:
    """Escape what a terminal, or a database of three-byte UTF-8, does not accept."""
    escaped = (c if c.isprintable() and c <= "\uffff" else c.encode("unicode_escape").decode() for c in name)
    text = "".join(escaped)
    return text if len(text) <= MAX_LABEL_LENGTH else f"{text[: MAX_LABEL_LENGTH - 1]}…"
