"""Find every job command of the installed apps."""

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
    """The jobs by name, each a new instance, and the exceptions of the commands that cannot be imported."""

    jobs: dict[str, CloudRunJobs] = field(default_factory=dict)
    unreadable: dict[str, Exception] = field(default_factory=dict)


def find_jobs() -> FoundJobs:
    """Import the management commands that may be jobs, and return those that are."""
    found = FoundJobs()
    for name, module in _candidates():
        try:
            command = getattr(import_module(module), "Command", None)
            if isinstance(command, type) and issubclass(command, CloudRunJobs):
                job = command()
                if job.is_enabled:
                    found.jobs[name] = job
        except Exception as error:  # noqa: BLE001  (a module may raise anything while it is imported)
            found.unreadable[name] = error
    return found


def _candidates() -> Iterator[tuple[str, str]]:
    for name, app in sorted(get_commands().items()):
        module = f"{app}.management.commands.{name}"
        if isinstance(app, str) and _may_be_job(module):
            yield name, module


def _may_be_job(module: str) -> bool:
    """Return True if a command's source is the project's own, or mentions Cloud Run.

    Importing a command has side effects: debugsqlshell of django-debug-toolbar changes how all SQL is run.
    """
    spec = find_spec(module)
    if spec is None or spec.origin is None:
        return True  # The import raises the error.
    source = Path(spec.origin)
    installed = not {"site-packages", "dist-packages"}.isdisjoint(source.parts)
    return not installed or "cloudrun" in source.read_text(errors="replace").lower()
