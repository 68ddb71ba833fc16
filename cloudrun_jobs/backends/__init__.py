"""Backends: run jobs in this process, on Cloud Run, or on queue workers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from cloudrun_jobs import conf
from cloudrun_jobs.backends.base import Backend, Request
from cloudrun_jobs.exceptions import InvalidSettings
from cloudrun_jobs.loading import check_options, import_backend
from cloudrun_jobs.suggestions import did_you_mean

if TYPE_CHECKING:
    from cloudrun_jobs.models import JobRun
    from cloudrun_jobs.spec import JobSpec

__all__ = ["Backend", "Request", "by_alias", "configured", "current", "declared", "for_job", "for_run"]

ENTRY_KEYS = ("BACKEND", "OPTIONS")


def current() -> Backend:
    """Return the backend that `BACKEND` of the settings names. Raises `InvalidSettings`."""
    return _enabled(_default())


def _default() -> Backend:
    settings, where = conf.load(), conf.setting_name("BACKEND")
    backend = import_backend(settings.backend, Backend, setting=where)
    # All environments share the settings: the inline backend checks the options of Cloud Run, but ignores them.
    inline = settings.backend == conf.INLINE_BACKEND
    checked = import_backend(conf.CLOUDRUN_BACKEND, Backend, setting=where) if inline else backend
    options = check_options(checked, settings.options, setting=conf.setting_name("OPTIONS"))
    configured: Backend = backend(settings, **({} if inline else options))
    return configured


def by_alias(alias: str) -> Backend:
    """Return a backend of `BACKENDS`, or that of `BACKEND` for "" and "default". Raises `InvalidSettings`."""
    if alias in {"", conf.DEFAULT_ALIAS}:
        return current()
    settings, backend = conf.load(), declared(alias)
    return _enabled(_inline(backend) if settings.environment in conf.INLINE_ENVIRONMENTS else backend, alias)


def declared(alias: str) -> Backend:
    """Return the backend as the settings declare it, in every environment, for checks.

    Raises `InvalidSettings`.
    """
    if alias in {"", conf.DEFAULT_ALIAS}:
        return _default()
    settings = conf.load()
    if alias not in settings.backends:
        hint = did_you_mean(alias, [*settings.backends, conf.DEFAULT_ALIAS])
        raise InvalidSettings(f"{conf.setting_name('BACKENDS')}: no backend {alias!r}.", hint=hint)
    backend, options = _entry(alias, settings.backends[alias])
    named: Backend = backend(settings, **options)
    named.alias = alias
    return named


def _entry(alias: str, entry: object) -> tuple[Any, Mapping[str, Any]]:
    """Return the class and the options of an entry of `BACKENDS`. Raises `InvalidSettings`."""
    where = conf.setting_name("BACKENDS", alias)
    if not isinstance(entry, Mapping) or "BACKEND" not in entry:
        raise InvalidSettings(f"{where}: expected a dictionary with BACKEND and OPTIONS, got {entry!r:.100}.")
    for key in entry:
        if key not in ENTRY_KEYS:
            raise InvalidSettings(f"{where}: unknown key {key!r}.", hint=did_you_mean(str(key), ENTRY_KEYS))
    backend = import_backend(entry["BACKEND"], Backend, setting=f"{where}['BACKEND']")
    return backend, check_options(backend, entry.get("OPTIONS", {}), setting=f"{where}['OPTIONS']")


def _enabled(backend: Backend, alias: str = "") -> Backend:
    if backend.is_disabled:
        backend = _inline(backend)
    backend.alias = alias
    return backend


def _inline(replaced: Backend) -> Backend:
    backend = import_backend(conf.INLINE_BACKEND, Backend, setting="BACKEND")(replaced.settings)
    backend.replaced = replaced
    return cast(Backend, backend)


def configured() -> list[Backend]:
    """Return all backends of the settings, the default one first. Raises `InvalidSettings`."""
    aliases = conf.load().backends
    for alias in aliases:
        if alias == conf.DEFAULT_ALIAS or not re.fullmatch(r"[\w.:-]{1,63}", str(alias)):
            where = conf.setting_name("BACKENDS")
            hint = "BACKEND and OPTIONS are the backend 'default'." if alias == conf.DEFAULT_ALIAS else ""
            expected = "aliases of up to 63 letters, digits, '_', '.', ':' and '-', other than 'default'"
            raise InvalidSettings(f"{where}: expected {expected}, got {alias!r:.100}.", hint=hint)
    return [current(), *map(by_alias, aliases)]


def for_job(spec: JobSpec) -> Backend:
    """Return the backend of a job. Raises `InvalidSettings`, naming the job, if it does not exist."""
    try:
        return by_alias(spec.backend_alias)
    except InvalidSettings as error:
        raise InvalidSettings(f"{spec.command}: {error.args[0]}", hint=error.hint) from error


def for_run(run: JobRun) -> Backend:
    """Return the backend that the run was requested for. Raises `InvalidSettings` if it is not configured."""
    return by_alias(run.backend)
