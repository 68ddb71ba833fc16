"""Find the run or the job that an argument names, and suggest a similar name if there is none."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Collection, Iterable

from django.core.management import get_commands
from django.core.management.base import CommandError

from cloudrun_jobs.command import CloudRunJobs
from cloudrun_jobs.management.exits import ERROR, FAILED
from cloudrun_jobs.management.output import next_command
from cloudrun_jobs.models import JobRun
from cloudrun_jobs.models.querysets import MIN_PREFIX
from cloudrun_jobs.models.runs import is_run_id, short_name
from cloudrun_jobs.registry import find_jobs
from cloudrun_jobs.suggestions import closest, did_you_mean

SUGGESTED_RUNS = 200  # The newest runs, which are searched for a similar name.
RUN_HELP = "The run's id, its first eight digits, or its execution's name."


def add_run_argument(parser: ArgumentParser) -> None:
    parser.add_argument("id", metavar="run", help=RUN_HELP)


def find_run(name: str) -> JobRun:
    """Return the run that the argument names. Raises `CommandError`."""
    if (run := find_run_or_none(name)) is not None:
        return run
    if JobRun.objects.for_command(name).exists():
        message = f"No run {name!r} is recorded. {next_command('runs', name)} lists the runs of the job."
        raise CommandError(message, returncode=FAILED)
    hint = similar_run(name) or f"{next_command('runs')} lists the runs."
    raise CommandError(f"No run {name!r} is recorded. {hint}", returncode=FAILED)


def find_run_or_none(name: str) -> JobRun | None:
    """Return the run that the argument names, if there is one. Raises `CommandError` if there are several."""
    if is_run_id(name):
        return JobRun.objects.filter(pk=name).first()
    return JobRun.objects.filter(execution=short_name(name)).first() or _find_by_prefix(name)


def similar_run(name: str, others: Collection[str] = ()) -> str:
    """Return "Did you mean ...?" for a similar recent run, execution or other name; "" if there is none."""
    newest = JobRun.objects.newest_first().values_list("pk", "execution")[:SUGGESTED_RUNS]
    ids, executions = {str(pk) for pk, _ in newest}, {execution for _, execution in newest if execution}
    known = {each[: max(len(name), MIN_PREFIX)] for each in ids}
    return closest(name, {*known, *executions, *others})


def find_job(name: str) -> CloudRunJobs:
    """Return the declared job. Raises `CommandError`."""
    found = find_jobs()
    if name in found.jobs:
        return found.jobs[name]
    if (error := found.unreadable.get(name)) is not None:
        message = f"{name}: cannot be imported. {type(error).__name__}: {error}"
        raise CommandError(message, returncode=ERROR) from error
    raise unknown_job(name, found.jobs)


def unknown_job(name: str, jobs: Iterable[str], returncode: int = FAILED) -> CommandError:
    """Return the error for an unknown job."""
    what = "is a command, but not a Cloud Run job" if name in get_commands() else "is not a Cloud Run job"
    return CommandError(f"{name!r} {what}. {did_you_mean(name, jobs)}".rstrip(), returncode=returncode)


def _find_by_prefix(prefix: str) -> JobRun | None:
    """Return the run whose id begins with the prefix. Raises `CommandError` if there are several."""
    found = list(JobRun.objects.with_id_prefix(prefix))
    if len(found) > 1:
        ids = ", ".join(str(run.pk) for run in found[:5])
        raise CommandError(f"The ids of {len(found)} runs begin with {prefix!r}: {ids}. Use a longer prefix.")
    return found[0] if found else None
