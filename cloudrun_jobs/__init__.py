"""Django management commands as Google Cloud Run jobs."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cloudrun_jobs.argv.secret_ref import SecretRef
    from cloudrun_jobs.command import CloudRunJobs
    from cloudrun_jobs.exceptions import (
        CloudRunJobsError,
        InvalidArguments,
        JobCancelled,
        JobFailed,
        JobInterrupted,
        LeaseLost,
        ResultUnavailable,
    )
    from cloudrun_jobs.locks import LockManager
    from cloudrun_jobs.operations import MockOperation, Operation
    from cloudrun_jobs.runs.requester import requested_by
    from cloudrun_jobs.spec import Schedule

# Imported on first access: INSTALLED_APPS imports this package before settings and models are ready.
_MODULES = {
    "CloudRunJobs": "command",
    "CloudRunJobsError": "exceptions",
    "InvalidArguments": "exceptions",
    "JobCancelled": "exceptions",
    "JobFailed": "exceptions",
    "JobInterrupted": "exceptions",
    "LeaseLost": "exceptions",
    "LockManager": "locks",
    "MockOperation": "operations",
    "Operation": "operations",
    "ResultUnavailable": "exceptions",
    "Schedule": "spec",
    "SecretRef": "argv.secret_ref",
    "requested_by": "runs.requester",
}

__all__ = [
    "CloudRunJobs",
    "CloudRunJobsError",
    "InvalidArguments",
    "JobCancelled",
    "JobFailed",
    "JobInterrupted",
    "LeaseLost",
    "LockManager",
    "MockOperation",
    "Operation",
    "ResultUnavailable",
    "Schedule",
    "SecretRef",
    "requested_by",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    _check_installed()
    return getattr(import_module(f".{_MODULES[name]}", __name__), name)


def _check_installed() -> None:
    """Raise before Django does with a confusing message about an unknown model."""
    from django.apps import apps

    if apps.apps_ready and not apps.is_installed(__name__):
        from cloudrun_jobs.exceptions import InvalidSettings

        hint = f"Add it and run `manage.py migrate {__name__}`."
        raise InvalidSettings(f"{__name__!r} is not in INSTALLED_APPS.", hint=hint)


def __dir__() -> list[str]:
    return __all__
