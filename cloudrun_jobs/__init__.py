"""Django management commands as Google Cloud Run jobs."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cloudrun_jobs.command import CloudRunJobs
    from cloudrun_jobs.exceptions import CloudRunJobsError, InvalidArguments, JobCancelled, JobFailed
    from cloudrun_jobs.operations import MockOperation, Operation
    from cloudrun_jobs.runs.requester import requested_by
    from cloudrun_jobs.spec import Schedule

# Imported when first asked for: INSTALLED_APPS imports this package before settings and models are ready.
_HOMES = {
    "CloudRunJobs": "command",
    "CloudRunJobsError": "exceptions",
    "InvalidArguments": "exceptions",
    "JobCancelled": "exceptions",
    "JobFailed": "exceptions",
    "MockOperation": "operations",
    "Operation": "operations",
    "Schedule": "spec",
    "requested_by": "runs.requester",
}

__all__ = [
    "CloudRunJobs",
    "CloudRunJobsError",
    "InvalidArguments",
    "JobCancelled",
    "JobFailed",
    "MockOperation",
    "Operation",
    "Schedule",
    "requested_by",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    _check_installed()
    return getattr(import_module(f".{_HOMES[name]}", __name__), name)


def _check_installed() -> None:
    """Say it before Django does, of a model that nobody here has heard of."""
    from django.apps import apps

    if apps.apps_ready and not apps.is_installed(__name__):
        from cloudrun_jobs.exceptions import InvalidSettings

        hint = f"Add it, and run `manage.py migrate {__name__}`."
        raise InvalidSettings(f"{__name__!r} is not in INSTALLED_APPS.", hint=hint)


def __dir__() -> list[str]:
    return __all__
