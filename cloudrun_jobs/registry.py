"""Finds every job command of the installed apps."""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib import import_module

from django.core.management import get_commands

from .command import CloudRunJobs


@dataclass(frozen=True, slots=True)
class Found:
    """The jobs, a new instance of each, and the commands of which it is not known whether they are jobs."""

    jobs: list[CloudRunJobs] = field(default_factory=list)
    unreadable: dict[str, Exception] = field(default_factory=dict)  # By name: what importing it raised.


def find_jobs() -> Found:
    """Import every management command but Django's own, and return those that are jobs, by name."""
    found = Found()
    for name, app in sorted(get_commands().items()):
        if not isinstance(app, str) or app.partition(".")[0] == "django":
            continue
        try:
            module = import_module(f"{app}.management.commands.{name}")
        except Exception as error:  # noqa: BLE001  (a module may raise anything while it is imported)
            found.unreadable[name] = error
            continue
        command = getattr(module, "Command", None)
        if isinstance(command, type) and issubclass(command, CloudRunJobs):
            found.jobs.append(command())
    return found
