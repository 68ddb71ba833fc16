"""A local Cloud Run with Cloud Scheduler and Cloud Tasks that serves the protocols of the real services."""

from __future__ import annotations

import importlib
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cloudrun_jobs.emulator.server import Emulator

__all__ = ["Emulator"]

REQUIRED_MODULES = ("cryptography", "jinja2", "jwt", "lark", "re2", "werkzeug")  # Those of the extra `emulator`.


class MissingExtra(ImportError):
    """The extra `emulator` is not installed."""


def __getattr__(name: str) -> Any:
    # Importing the Google clients takes most of a second, so import them on first use.
    if name == "Emulator":
        if missing := [module for module in REQUIRED_MODULES if find_spec(module) is None]:
            hint = 'install the extra: pip install "django-cloudrun-jobs[emulator]"'
            raise MissingExtra(f"the emulator requires {', '.join(missing)}; {hint}")
        return importlib.import_module("cloudrun_jobs.emulator.server").Emulator
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
