"""Locks that are leased: held while their holder lives, and soon free when it does not.

`LockManager` is for everybody; jobs take their locks by themselves.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cloudrun_jobs.locks.base import Holder, LockBackend
    from cloudrun_jobs.locks.configured import current
    from cloudrun_jobs.locks.lease import Lease
    from cloudrun_jobs.locks.manager import LockManager

# Imported when first asked for: the start of a job that takes no locks does not pay for them.
_HOMES = {
    "Holder": "base",
    "Lease": "lease",
    "LockBackend": "base",
    "LockManager": "manager",
    "current": "configured",
}

__all__ = ["Holder", "Lease", "LockBackend", "LockManager", "current"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOMES[name]}", __name__), name)


def __dir__() -> list[str]:
    return __all__
