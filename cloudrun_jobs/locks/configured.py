"""Which backend keeps the locks: the one of the settings, built once in a process."""

from __future__ import annotations

import inspect
import os
from collections.abc import Mapping
from typing import Any

from django.core.signals import setting_changed
from django.db import connections
from django.utils.module_loading import import_string

from cloudrun_jobs import conf
from cloudrun_jobs.exceptions import InvalidSettings
from cloudrun_jobs.locks.base import LockBackend
from cloudrun_jobs.suggestions import did_you_mean

DATABASE = "cloudrun_jobs.locks.database.DatabaseLocks"
LOCAL = "cloudrun_jobs.locks.local.LocalLocks"
KEYS = frozenset({"BACKEND", "OPTIONS"})

# Another object whenever settings may have changed: whoever keeps a backend looks at it before use.
settings_generation = object()

_built: dict[str, LockBackend] = {}
_inherited: list[dict[str, LockBackend]] = []


def current() -> LockBackend:
    """Return the backend in force, or raise `InvalidSettings`."""
    settings = conf.load()
    for key in settings.locks:
        if key not in KEYS:
            raise InvalidSettings(
                f"{conf.setting_name('LOCKS')}: unknown key {key!r}.", hint=did_you_mean(str(key), KEYS)
            )
    path = settings.locks.get("BACKEND") or _default(settings)
    options = settings.locks.get("OPTIONS", {})
    identity = repr((path, options, settings.project, settings.environment))
    if identity not in _built:
        _built[identity] = _build(path, options, settings)
    return _built[identity]


def _default(settings: conf.Settings) -> str:
    """Choose the database, unless tests run or the database is no wider than this process."""
    # A TestCase wraps everything in a transaction, and many tests may not touch the database at all.
    if settings.environment == "test":
        return LOCAL
    default = connections["default"]
    in_memory = default.vendor == "sqlite" and default.is_in_memory_db()  # type: ignore[attr-defined]
    return LOCAL if in_memory else DATABASE


def _build(path: object, options: object, settings: conf.Settings) -> LockBackend:
    backend = _import(path)
    if not isinstance(options, Mapping):
        raise InvalidSettings(f"{conf.setting_name('LOCKS', 'OPTIONS')}: expected a dictionary, got {options!r}.")
    known, where = _options(backend), conf.setting_name("LOCKS", "OPTIONS")
    for name, parameter in inspect.signature(backend).parameters.items():
        if (
            parameter.kind is parameter.KEYWORD_ONLY
            and parameter.default is parameter.empty
            and name not in options
        ):
            raise InvalidSettings(f"{where}: {backend.__name__} needs the option {name!r}.")
    for option in options:
        if option not in known:
            hint = did_you_mean(str(option), known)
            raise InvalidSettings(f"{where}: {backend.__name__} has no option {option!r}.", hint=hint)
    return backend(settings, **options)


def _options(backend: type[LockBackend]) -> set[str]:
    found = {name for cls in backend.__mro__ for name in inspect.signature(cls).parameters if cls is not object}
    return found - {"settings", "options", "args", "kwargs"}


def _import(path: Any) -> type[LockBackend]:
    try:
        backend = import_string(path)
    except (ImportError, AttributeError) as error:
        hint = "Install the extra: pip install 'django-cloudrun-jobs[redis]'." if "'redis'" in str(error) else ""
        raise InvalidSettings(f"{conf.setting_name('LOCKS', 'BACKEND')}: {error}.", hint=hint) from error
    if not (isinstance(backend, type) and issubclass(backend, LockBackend)):
        raise InvalidSettings(f"{conf.setting_name('LOCKS', 'BACKEND')}: {path} is not a subclass of LockBackend.")
    return backend


def _begin_generation(**kwargs: object) -> None:
    global settings_generation
    settings_generation = object()


def _forget_inherited() -> None:
    _begin_generation()
    # Kept, not closed: closing would say goodbye on sockets that the parent goes on using.
    _inherited.append(dict(_built))
    _built.clear()


setting_changed.connect(_begin_generation, dispatch_uid="cloudrun_jobs.locks")
os.register_at_fork(after_in_child=_forget_inherited)
