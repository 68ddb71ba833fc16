"""The subcommands of `manage.py cloudrun_jobs`: a module each, with HELP, `add_arguments()` and `run()`."""

from __future__ import annotations

from importlib import import_module

NAMES = (
    "cancel",
    "doctor",
    "export",
    "list",
    "locks",
    "logs",
    "pause",
    "prune",
    "reconcile",
    "rerun",
    "reservations",
    "resume",
    "run",
    "runs",
    "show",
    "stats",
    "token",
    "unlock",
)
SUBCOMMANDS = {name: import_module(f"{__name__}.{name}") for name in NAMES}
