"""Find every job command of the installed apps."""

from __future__ import annotations

import os
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from django.conf import ENVIRONMENT_VARIABLE, settings
from django.core.management import get_commands

from cloudrun_jobs.command import CloudRunJobs
from cloudrun_jobs.exceptions import InvalidJob
from cloudrun_jobs.registry.inheritance import SourceReader
from cloudrun_jobs.spec import JobSpec

PROJECT_SETTINGS = ("ROOT_URLCONF", "WSGI_APPLICATION", "ASGI_APPLICATION")  # They name modules of the project.


@dataclass(frozen=True, slots=True)
class FoundJobs:
    """The jobs by name, each a new instance, and the exceptions of the commands that cannot be imported."""

    jobs: dict[str, CloudRunJobs] = field(default_factory=dict)
    unreadable: dict[str, BaseException] = field(default_factory=dict)


def find_jobs() -> FoundJobs:
    """Import the management commands that may be jobs, and return those that are."""
    found, reader, own = FoundJobs(), SourceReader(), _project_packages()
    for name, app in sorted(get_commands().items()):
        try:
            if job := _load(name, app, own, reader):
                found.jobs[name] = job
        # A module, or a package of the app, may raise anything or exit while it is imported.
        except (Exception, SystemExit) as error:  # noqa: BLE001
            found.unreadable[name] = error
    return found


def find_specs() -> list[JobSpec]:
    """Return the declarations of every job, except for those that are invalid, which the system checks report."""
    specs = []
    for job in find_jobs().jobs.values():
        with suppress(InvalidJob):
            specs.append(job.spec)
    return specs


def find_job(name: str) -> CloudRunJobs | None:
    """Return a new instance of the job of that name; None if no command of that name is one."""
    return _load(name, get_commands().get(name), _project_packages(), SourceReader())


def find_job_or_none(name: str) -> CloudRunJobs | None:
    """Return `find_job()` of the name; None as well if the command cannot be imported."""
    with suppress(Exception, SystemExit):
        return find_job(name)
    return None


def _load(name: str, app: object, own: Collection[str], reader: SourceReader) -> CloudRunJobs | None:
    """Return the command if it is a job that the settings do not disable."""
    module = f"{app}.management.commands.{name}"
    if not isinstance(app, str) or not _may_be_job(module, own, reader):
        return None
    command = getattr(import_module(module), "Command", None)
    job = command() if isinstance(command, type) and issubclass(command, CloudRunJobs) else None
    return job if job is not None and job.is_enabled else None


def _project_packages() -> set[str]:
    names = [os.environ.get(ENVIRONMENT_VARIABLE), *(getattr(settings, name, None) for name in PROJECT_SETTINGS)]
    return {name.partition(".")[0] for name in names if name}


def _may_be_job(module: str, own: Collection[str], reader: SourceReader) -> bool:
    """Return True if a command is the project's own, mentions Cloud Run, or may have a job as base class.

    Django's own commands are no jobs.
    Importing a command has side effects: debugsqlshell of django-debug-toolbar changes how all SQL is run.
    """
    if module.startswith("django."):
        return False
    spec = find_spec(module)
    if spec is None or spec.origin is None or module.partition(".")[0] in own:
        return True  # If there is none, the import raises the error.
    if {"site-packages", "dist-packages"}.isdisjoint(Path(spec.origin).parts):
        return True
    get_source = getattr(spec.loader, "get_source", None)  # The module may be in a zip file.
    source = get_source(module) if get_source else None
    return source is None or "cloudrun" in source.lower() or not reader.excludes_job(module, "Command")
