"""Locks that are leased: held while their holder lives, and soon free when it does not.

`LockManager` is for everybody; jobs take their locks by themselves.
"""

from __future__ import annotations

from .backend import current
from .base import Holder, LockBackend
from .lease import Lease
from .manager import LockManager

__all__ = ["Holder", "Lease", "LockBackend", "LockManager", "current"]
