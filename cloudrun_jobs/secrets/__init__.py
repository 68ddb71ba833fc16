"""Read and update secrets in Secret Manager, or locally in the settings, a file or the emulator."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cloudrun_jobs.argv.secret_ref import SecretRef
    from cloudrun_jobs.secrets.access import latest_version, read, read_bytes, update

_MODULES = {
    "SecretRef": "cloudrun_jobs.argv.secret_ref",
    "latest_version": "cloudrun_jobs.secrets.access",
    "read": "cloudrun_jobs.secrets.access",
    "read_bytes": "cloudrun_jobs.secrets.access",
    "update": "cloudrun_jobs.secrets.access",
}

__all__ = ["SecretRef", "latest_version", "read", "read_bytes", "update"]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return __all__
