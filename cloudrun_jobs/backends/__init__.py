"""How a request to run a job is carried out: in this process, or by Cloud Run."""

from __future__ import annotations

import inspect
from functools import cache

from django.utils.module_loading import import_string

from cloudrun_jobs import conf
from cloudrun_jobs.backends.base import Backend, InProcessBackend, RemoteBackend, Request
from cloudrun_jobs.exceptions import InvalidSettings, did_you_mean

__all__ = ["Backend", "InProcessBackend", "RemoteBackend", "Request", "current"]


def current() -> Backend:
    """Return the backend in force, or raise `InvalidSettings`."""
    settings = conf.load()
    backend = _import(settings.backend)
    inline = settings.backend == conf.INLINE_BACKEND
    # One dictionary serves all environments: inline, the cloud's options are checked and not used.
    known = _options(_import(conf.CLOUDRUN_BACKEND) if inline else backend)
    for option in settings.options:
        if option not in known:
            hint = did_you_mean(str(option), known)
            where = conf.setting_name("OPTIONS")
            raise InvalidSettings(f"{where}: {backend.__name__} has no option {option!r}.", hint=hint)
    return backend(settings, **({} if inline else settings.options))


@cache
def _options(backend: type[Backend]) -> list[str]:
    return [name for name in inspect.signature(backend).parameters if name != "settings"]


def _import(path: str) -> type[Backend]:
    try:
        backend = import_string(path)
    except ImportError as error:
        raise InvalidSettings(f"{conf.setting_name('BACKEND')}: {error}.") from error
    if not (isinstance(backend, type) and issubclass(backend, Backend)):
        raise InvalidSettings(f"{conf.setting_name('BACKEND')}: {path} is not a subclass of Backend.")
    return backend
