"""The lock backend that the settings name, built once per process."""

from __future__ import annotations

import os
from collections.abc import Mapping

from django.core.signals import setting_changed
from django.db import connections, router

from cloudrun_jobs import conf
from cloudrun_jobs.exceptions import InvalidSettings
from cloudrun_jobs.loading import check_options, import_backend
from cloudrun_jobs.locks.base import LockBackend
from cloudrun_jobs.suggestions import did_you_mean

DATABASE = "cloudrun_jobs.locks.database.DatabaseLocks"
LOCAL = "cloudrun_jobs.locks.local.LocalLocks"
KEYS = frozenset({"BACKEND", "OPTIONS"})

# Another object whenever settings may have changed: code that caches a backend compares it before use.
settings_generation = object()

_built: dict[str, LockBackend] = {}
_inherited: list[dict[str, LockBackend]] = []


def current() -> LockBackend:
    """Return the backend in force. Raises `InvalidSettings`."""
    settings = conf.load()
    for key in settings.locks:
        if key not in KEYS:
            hint = did_you_mean(str(key), KEYS)
            raise InvalidSettings(f"{conf.setting_name('LOCKS')}: unknown key {key!r}.", hint=hint)
    options = settings.locks.get("OPTIONS", {})
    alias = (options.get("using") if isinstance(options, Mapping) else None) or _routed_database()
    path = settings.locks.get("BACKEND") or _default(settings, alias)
    identity = repr((path, options, alias, settings.project, settings.environment))
    if identity not in _built:
        backend = import_backend(path, LockBackend, setting=conf.setting_name("LOCKS", "BACKEND"))
        checked = check_options(backend, options, setting=conf.setting_name("LOCKS", "OPTIONS"))
        _built[identity] = backend(settings, **checked)
    return _built[identity]


def _routed_database() -> str:
    from cloudrun_jobs.models import LockSlot  # Once Django has loaded the apps.

    return router.db_for_write(LockSlot)


def _default(settings: conf.Settings, alias: str) -> str:
    """Choose the database, except in tests and where the database is this process's own memory."""
    # A TestCase wraps everything in a transaction, and many tests may not touch the database at all.
    if settings.environment == "test":
        return LOCAL
    if alias not in connections:
        return DATABASE  # It raises the error.
    database = connections[alias]
    in_memory = database.vendor == "sqlite" and database.is_in_memory_db()  # type: ignore[attr-defined]
    return LOCAL if in_memory else DATABASE


def _begin_generation(**kwargs: object) -> None:
    global settings_generation
    settings_generation = object()


def _reset_after_fork() -> None:
    _begin_generation()
    # Kept, not closed: closing would end sessions that the parent still uses.
    _inherited.append(dict(_built))
    _built.clear()


setting_changed.connect(_begin_generation, dispatch_uid="cloudrun_jobs.locks")
os.register_at_fork(after_in_child=_reset_after_fork)
