"""Locks as leases: held while their holder lives, and free soon after it dies.

`LockManager` is for any code; jobs acquire their own locks.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cloudrun_jobs.locks.base import Holder, LockBackend
    from cloudrun_jobs.locks.configured import current
    from cloudrun_jobs.locks.lease import Lease
    from cloudrun_jobs.locks.manager import LockManager

# Imported when first used: a job without locks does not pay for them.
_MODULES = {
    "Holder": "base",
    "Lease": "lease",
    "LockBackend": "base",
    "LockManager": "manager",
    "current": "configured",
}

__all__ = ["Holder", "Lease", "LockBackend", "LockManager", "current"]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_MODULES[name]}", __name__), name)


def __dir__() -> list[str]:
    return __all__
