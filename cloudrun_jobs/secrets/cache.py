"""Cache the values that this process has read within the last minute."""

from __future__ import annotations

import os
import time
from collections.abc import Hashable
from threading import Lock
from typing import Any, NamedTuple

from django.core.signals import setting_changed

from cloudrun_jobs.secrets.payload import Version

MAX_AGE_SECONDS = 60.0
MAX_ENTRIES = 256  # Of at most 64 KiB.

Key = tuple[Hashable, str, int | None]


class Cached(NamedTuple):
    """A cached version, and the times of its request and its storage by the monotonic clock."""

    version: Version
    since: float
    stored: float


_entries: dict[Key, Cached] = {}
_lock = Lock()


def clock() -> float:
    """Return the monotonic clock in seconds: the system time may be wrong, or change."""
    return time.monotonic()


def get(key: Key) -> Version | None:
    """Return the version, unless it is older than a minute."""
    with _lock:
        found = _entries.get(key)
    return found.version if found is not None and _is_fresh(found) else None


def put(key: Key, version: Version, since: float) -> None:
    """Cache a version that was requested at `since`, unless a newer one was cached in the meantime."""
    with _lock:
        found = _entries.get(key)
        if found is not None and found.version.number > version.number and found.stored >= since:
            return
        _entries.pop(key, None)
        for old in [each for each, cached in _entries.items() if not _is_fresh(cached)]:
            del _entries[old]
        while len(_entries) >= MAX_ENTRIES:
            del _entries[next(iter(_entries))]
        _entries[key] = Cached(version, since, clock())


def discard(identity: Hashable, name: str) -> None:
    """Remove all versions of a secret from the cache."""
    with _lock:
        for key in [key for key in _entries if key[:2] == (identity, name)]:
            del _entries[key]


def _is_fresh(cached: Cached) -> bool:
    return 0 <= clock() - cached.since < MAX_AGE_SECONDS


def _clear() -> None:
    """Empty the cache and replace its lock, which a thread of a forking parent may have held."""
    global _entries, _lock
    _entries, _lock = {}, Lock()


def _on_setting_changed(**kwargs: Any) -> None:
    if kwargs.get("setting") == "CLOUDRUN_JOBS":
        _clear()


setting_changed.connect(_on_setting_changed, dispatch_uid="cloudrun_jobs.secrets.cache")
os.register_at_fork(after_in_child=_clear)
