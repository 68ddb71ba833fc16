"""A local Cloud Run and Cloud Scheduler that serves the protocols of the real services."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cloudrun_jobs.emulator.server import Emulator

__all__ = ["Emulator"]


def __getattr__(name: str) -> Any:
    # Importing the Google clients takes most of a second, so import them on first use.
    if name == "Emulator":
        return importlib.import_module("cloudrun_jobs.emulator.server").Emulator
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
