"""Find every job command of the installed apps."""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from django.core.management import get_commands

from cloudrun_jobs.command import CloudRunJobs


@dataclass(frozen=True, slots=True)
class FoundJobs:
    """The jobs by name, each a new instance, and the exceptions of the commands that cannot be imported."""

    jobs: dict[str, CloudRunJobs] = field(default_factory=dict)
    unreadable: dict[str, BaseException] = field(default_factory=dict)


def find_jobs() -> FoundJobs:
    """Import the management commands that may be jobs, and return those that are."""
    found = FoundJobs()
    for name, app in sorted(get_commands().items()):
        module = f"{app}.management.commands.{name}"
        try:
            if not isinstance(app, str) or not _may_be_job(module):
                continue
            command = getattr(import_module(module), "Command", None)
            if isinstance(command, type) and issubclass(command, CloudRunJobs):
                job = command()
                if job.is_enabled:
                    found.jobs[name] = job
        # A module, or a package of the app, may raise anything or exit while it is imported.
        except (Exception, SystemExit) as error:  # noqa: BLE001
            found.unreadable[name] = error
    return found


def _may_be_job(module: str) -> bool:
    """Return True if a command's source is the project's own, or mentions Cloud Run.

    Importing a command has side effects: debugsqlshell of django-debug-toolbar changes how all SQL is run.
    """
    spec = find_spec(module)
    if spec is None or spec.origin is None:
        return True  # The import raises the error.
    if {"site-packages", "dist-packages"}.isdisjoint(Path(spec.origin).parts):
        return True
    get_source = getattr(spec.loader, "get_source", None)  # The module may be in a zip file.
    source = get_source(module) if get_source else None
    return source is None or "cloudrun" in source.lower()


def find_job(name: str) -> CloudRunJobs | None:
    """Return a new instance of the job of that name; None if no command of that name is one."""
    app = get_commands().get(name)
    module = f"{app}.management.commands.{name}"
    if not isinstance(app, str) or not _may_be_job(module):
        return None
    command = getattr(import_module(module), "Command", None)
    job = command() if isinstance(command, type) and issubclass(command, CloudRunJobs) else None
    return job if job is not None and job.is_enabled else None
