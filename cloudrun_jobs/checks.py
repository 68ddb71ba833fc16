"""System checks: what is wrong with the settings and the jobs, told before anything runs.

The ids are for ever: one that is no longer used is not given to another check.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from difflib import get_close_matches
from functools import partial
from typing import Any
from zoneinfo import ZoneInfo

from django.apps import AppConfig
from django.conf import settings
from django.core.checks import CheckMessage, Error, Tags, Warning, register  # noqa: A004

from cloudrun_jobs import backends, conf, cron, locks
from cloudrun_jobs.command import CloudRunJobs
from cloudrun_jobs.command_line import build, option_names
from cloudrun_jobs.deploy import schedules
from cloudrun_jobs.exceptions import InvalidArguments, InvalidJob, InvalidSettings, LockError
from cloudrun_jobs.locks.policy import DJANGO_OPTIONS
from cloudrun_jobs.registry import find_jobs
from cloudrun_jobs.spec import DECLARATIONS, JobSpec, Schedule, check_declarations, resource_name
from cloudrun_jobs.suggestions import did_you_mean

TAG = "cloudrun_jobs"


@register(TAG)
def check_settings(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """Check `settings.CLOUDRUN_JOBS` and the backend it names."""
    unread = [
        Warning(f"settings.{name} is not read by cloudrun_jobs.", hint=hint, id="cloudrun_jobs.W007")
        for name, hint in conf.unrecognised_settings()
    ]
    try:
        check_declarations("DEFAULTS", conf.load().defaults)
        return [*unread, *backends.current().check()]
    except InvalidSettings as error:
        return [*unread, Error(error.args[0], hint=error.hint or None, id="cloudrun_jobs.E001")]


@register(TAG)
def check_time_zones(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """Refuse local times in the database: the records' are compared with the server's clock, in UTC."""
    if settings.USE_TZ:
        return []
    words = "USE_TZ is False: the records of the runs need times with a zone."
    return [Error(words, hint="Set USE_TZ = True, as Django does by default.", id="cloudrun_jobs.E015")]


@register(TAG)
def check_locks(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """Check the locks' backend, and that it reaches as far as the jobs do."""
    try:
        conf.load()
    except InvalidSettings:
        return []  # check_settings tells it.
    try:
        backend = locks.current()
    except InvalidSettings as error:
        return [Error(error.args[0], hint=error.hint or None, id="cloudrun_jobs.E020")]
    return list(backend.check())


@register(TAG, deploy=True)
def check_reach_of_locks(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """Find locks that containers would not share."""
    try:
        backend, environment = locks.current(), conf.load().environment
    except InvalidSettings:
        return []  # check_locks and check_settings tell it.
    if backend.is_shared or environment in conf.INLINE_ENVIRONMENTS:
        return []
    return [
        Error(
            f"The environment is {environment!r}, and {type(backend).__name__} keeps locks in one process.",
            hint="Use cloudrun_jobs.locks.database.DatabaseLocks or cloudrun_jobs.locks.redis.RedisLocks.",
            id="cloudrun_jobs.E021",
        )
    ]


@register(Tags.database)
def check_lock_server(
    app_configs: Sequence[AppConfig] | None, databases: Sequence[str] | None = None, **kwargs: Any
) -> list[CheckMessage]:
    """Ask the server that keeps the locks, where servers may be asked: `manage.py check --database default`."""
    # Before the first `migrate` the tables are missing, and it is being run.
    if not databases or sys.argv[1:2] == ["migrate"]:
        return []
    try:
        return list(locks.current().inspect())
    except InvalidSettings:
        return []  # check_locks tells it.
    except LockError as error:
        return [Warning(error.args[0], hint=error.hint or None, id="cloudrun_jobs.W022")]


@register(Tags.database)
def check_record_tables(
    app_configs: Sequence[AppConfig] | None, databases: Sequence[str] | None = None, **kwargs: Any
) -> list[CheckMessage]:
    """Find records without tables, where servers may be asked."""
    from cloudrun_jobs.runs import database

    alias = database.database_alias()
    if alias not in (databases or ()) or sys.argv[1:2] == ["migrate"] or not database.tables_are_missing():
        return []
    words = f"The database {alias!r} has no tables for the records of the runs, so no job can run."
    return [Warning(words, hint=database.migrate_hint(), id="cloudrun_jobs.W023")]


@register(TAG)
def check_jobs(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """Check every job's declaration, and that no two jobs share a name in the cloud."""
    found = find_jobs()
    messages: list[CheckMessage] = [_unreadable(name, error) for name, error in found.unreadable.items()]
    try:
        messages += [message for name, job in found.jobs.items() for message in _check_job(name, job)]
        messages += _check_names(found.jobs)
    except InvalidSettings:
        pass  # check_settings tells it.
    return messages


@register(TAG, deploy=True)
def check_deployment(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """Warn if production would run its jobs inside of requests."""
    try:
        environment = conf.load().environment
    except InvalidSettings:
        return []
    if environment not in conf.INLINE_ENVIRONMENTS:
        return []
    return [
        Warning(
            f"The environment is {environment!r}: delay() runs jobs in the process that calls it.",
            hint="Set CLOUDRUN_JOBS['ENVIRONMENT'], or CLOUDRUN_JOBS_ENVIRONMENT in the environment.",
            id="cloudrun_jobs.W004",
        )
    ]


def _unreadable(name: str, error: Exception) -> CheckMessage:
    # A warning: the command may be another app's, and its missing library of no use here.
    words = f"The management command {name!r} cannot be imported, so it is not known whether it is a job."
    return Warning(words, hint=f"{type(error).__name__}: {error}", id="cloudrun_jobs.W006")


def _check_job(name: str, job: CloudRunJobs) -> Iterator[CheckMessage]:
    if job.command_name != name:
        words = f"{name}: its Command is the one of {type(job).__module__}, under whose name it would run."
        yield Error(words, hint="Derive one: `class Command(Base): pass`.", obj=type(job), id="cloudrun_jobs.E013")
        return
    try:
        job.spec  # noqa: B018  (built to be checked)
    except InvalidJob as error:
        for problem in error.problems:
            yield Error(f"{error.command}: {problem}", hint=problem.hint or None, obj=type(job), id=problem.id)
    else:
        yield from _check_options(job)
        yield from _check_starts(job, job.spec)
    for attribute in vars(type(job)):
        if not hasattr(CloudRunJobs, attribute) and attribute not in DECLARATIONS:
            yield from _check_spelling(job, attribute)


def _check_options(job: CloudRunJobs) -> Iterator[CheckMessage]:
    try:
        names = option_names(job)
    except Exception:  # noqa: BLE001  (its own code, which may ask a database that is not there yet)
        return
    for name in sorted({*(job.spec.lock_args or ())} - (names - DJANGO_OPTIONS)):
        hint = did_you_mean(name, names - DJANGO_OPTIONS)
        words = f"{job.command_name}: lock_args: expected names of its options, got {name!r}."
        yield Error(words, hint=hint, obj=type(job), id="cloudrun_jobs.E006")
    if "idempotency_key" in names:
        words = f"{job.command_name}: delay() has an argument idempotency_key of its own, and so has the command."
        yield Error(words, hint="Rename the command's option.", obj=type(job), id="cloudrun_jobs.E014")


def _check_starts(job: CloudRunJobs, spec: JobSpec) -> Iterator[CheckMessage]:
    """Check the ways in which it is started without `delay()`."""
    for schedule in spec.schedules:
        yield from _check_schedule(job, spec, schedule)
    if spec.args:
        yield from _check_arguments(job, "args", partial(build, job, (), spec.args, {}))


def _check_schedule(job: CloudRunJobs, spec: JobSpec, schedule: Schedule) -> Iterator[CheckMessage]:
    """Check what the expression means, and that the command takes what the schedule gives it."""
    who, zone = f"{job.command_name}: the schedule {schedule.cron!r}", str(schedule.time_zone)
    yield from _check_arguments(
        job, f"the schedule {schedule.cron!r}", partial(schedules.argv, job, spec, schedule)
    )
    if change := cron.next_dst_conflict(schedule.cron, zone, datetime.now(UTC)):
        day = f"{change.astimezone(ZoneInfo(zone)):%d %b %Y}"
        words = f"{who} names a time that {zone} skips or repeats, next on {day}."
        hint = "Cloud Scheduler does not promise what it does then: choose another hour, or the zone Etc/UTC."
        yield Warning(words, hint=hint, obj=type(job), id="cloudrun_jobs.W001")
    if cron.names_both_days(schedule.cron):
        words = f"{who} names days of the month and of the week: it runs on both, not only where they meet."
        yield Warning(words, hint="Put '*' for one of the two.", obj=type(job), id="cloudrun_jobs.W002")


def _check_arguments(job: CloudRunJobs, what: str, check: Callable[[], object]) -> Iterator[CheckMessage]:
    try:
        check()
    except InvalidArguments as error:
        who = f"{job.command_name}: "
        words = f"{who}{what} cannot start it. {error.args[0].removeprefix(who)}"
        hint = error.hint or "Give it arguments: schedule = [Schedule('...', args={...})]."
        yield Error(words, hint=hint, obj=type(job), id="cloudrun_jobs.E009")
    except Exception:  # noqa: BLE001  (its parser may ask a database that is not there yet)
        return


def _check_spelling(job: CloudRunJobs, attribute: str) -> Iterator[CheckMessage]:
    if close := get_close_matches(attribute, DECLARATIONS, n=1, cutoff=0.8):
        yield Warning(
            f"{job.command_name}: {attribute!r} declares nothing.",
            hint=f"Did you mean {close[0]!r}?",
            obj=type(job),
            id="cloudrun_jobs.W005",
        )


def _check_names(commands: Iterable[str]) -> Iterator[CheckMessage]:
    first: dict[str, str] = {}
    for command in commands:
        name = resource_name(command, conf.load().environment)
        other = first.setdefault(name, command)
        if other != command:
            words = f"{other} and {command} would both be the Cloud Run job {name!r}."
            yield Error(words, hint="Rename one of the commands.", id="cloudrun_jobs.E007")
