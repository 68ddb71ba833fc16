"""The verbs of `manage.py cloudrun_jobs`: a module each, with HELP, `add_arguments()` and `run()`."""

from __future__ import annotations

from types import ModuleType

from cloudrun_jobs.management.subcommands import (
    export,
    locks,
    prune,
    reconcile,
    reservations,
    runs,
    show,
    stats,
    unlock,
)

VERBS: dict[str, ModuleType] = {
    "export": export,
    "locks": locks,
    "prune": prune,
    "reconcile": reconcile,
    "reservations": reservations,
    "runs": runs,
    "show": show,
    "stats": stats,
    "unlock": unlock,
}
