"""Backends: run jobs in this process or on Cloud Run."""

from __future__ import annotations

from cloudrun_jobs import conf
from cloudrun_jobs.backends.base import Backend, Request
from cloudrun_jobs.loading import check_options, import_backend

__all__ = ["Backend", "Request", "current"]


def current() -> Backend:
    """Return the configured backend. Raises `InvalidSettings`."""
    settings, where = conf.load(), conf.setting_name("BACKEND")
    backend = import_backend(settings.backend, Backend, setting=where)
    # All environments share the settings: the inline backend checks the options of Cloud Run, but ignores them.
    inline = settings.backend == conf.INLINE_BACKEND
    checked = import_backend(conf.CLOUDRUN_BACKEND, Backend, setting=where) if inline else backend
    options = check_options(checked, settings.options, setting=conf.setting_name("OPTIONS"))
    configured: Backend = backend(settings, **({} if inline else options))
    return configured
