"""Finds every job command of the installed apps."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from django.core.management import get_commands

from cloudrun_jobs.command import CloudRunJobs


@dataclass(frozen=True, slots=True)
class FoundJobs:
    """The jobs by name, a new instance of each, and what could not be imported, so may be a job or not."""

    jobs: dict[str, CloudRunJobs] = field(default_factory=dict)
    unreadable: dict[str, Exception] = field(default_factory=dict)  # By name: what importing it raised.


def find_jobs() -> FoundJobs:
    """Import the management commands that may be jobs, and return those that are."""
    found = FoundJobs()
    for name, module in _candidates():
        try:
            command = getattr(import_module(module), "Command", None)
            if isinstance(command, type) and issubclass(command, CloudRunJobs):
                _add(found, name, command())
        except Exception as error:  # noqa: BLE001  (a module may raise anything while it is imported)
            found.unreadable[name] = error
    return found


def _add(found: FoundJobs, name: str, job: CloudRunJobs) -> None:
    if job.is_enabled:
        found.jobs[name] = job


def _candidates() -> Iterator[tuple[str, str]]:
    for name, app in sorted(get_commands().items()):
        module = f"{app}.management.commands.{name}"
        if isinstance(app, str) and _may_be_job(module):
            yield name, module


def _may_be_job(module: str) -> bool:
    """Say whether to import a command: of an installed package, only if its source speaks of jobs.

    Importing a stranger's command can do harm: debugsqlshell of django-debug-toolbar changes how all SQL is run.
    """
    spec = find_spec(module)
    if spec is None or spec.origin is None:
        return True  # Let the import say what is wrong.
    source = Path(spec.origin)
    installed = not {"site-packages", "dist-packages"}.isdisjoint(source.parts)
    return not installed or "cloudrun" in source.read_text(errors="replace").lower()
