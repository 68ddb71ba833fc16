"""The subcommands of `manage.py cloudrun_jobs`: a module each, with HELP, `add_arguments()` and `run()`."""

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

SUBCOMMANDS: dict[str, ModuleType] = {
    module.__name__.rpartition(".")[2]: module
    for module in (export, locks, prune, reconcile, reservations, runs, show, stats, unlock)
}
