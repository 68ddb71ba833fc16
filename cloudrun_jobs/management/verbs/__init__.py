"""The verbs of `manage.py cloudrun_jobs`: a module each, with HELP, `add_arguments()` and `run()`."""

from __future__ import annotations

from types import ModuleType

from . import locks, reconcile, unlock

VERBS: dict[str, ModuleType] = {"locks": locks, "reconcile": reconcile, "unlock": unlock}
