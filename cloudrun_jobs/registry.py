"""Finds every job command of the installed apps."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module

from django.core.management import get_commands

from .command import CloudRunJobs


def job_commands() -> Iterator[CloudRunJobs]:
    """Yield a new instance of each command that is a job, by name.

    Lets the error of a module that cannot be imported through: whether it holds a job is unknown.
    """
    for name, app in sorted(get_commands().items()):
        if not isinstance(app, str) or app.startswith("django.") or app == "django":
            continue
        module = import_module(f"{app}.management.commands.{name}")
        command = getattr(module, "Command", None)
        if isinstance(command, type) and issubclass(command, CloudRunJobs):
            yield command()
