"""Write a job's output, its log records and those of this package as Cloud Logging entries."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cloudrun_jobs.logs.context import JobContextFilter
    from cloudrun_jobs.logs.formatter import JsonFormatter
    from cloudrun_jobs.logs.google_handler import StructuredLogHandler

# Imported on first access: LOGGING names the filter, and Django reads that setting before it loads models.
_MODULES = {"JobContextFilter": "context", "JsonFormatter": "formatter"}
_MODULES["StructuredLogHandler"] = "google_handler"

__all__ = ["JobContextFilter", "JsonFormatter", "StructuredLogHandler"]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_MODULES[name]}", __name__), name)


def __dir__() -> list[str]:
    return __all__
