"""System checks of the settings and the jobs.

An id is stable: that of a removed check is not reused.
"""

from __future__ import annotations

import fnmatch
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from difflib import get_close_matches
from functools import partial
from typing import Any
from zoneinfo import ZoneInfo

from django.apps import AppConfig
from django.conf import settings
from django.core import mail
from django.core.checks import CheckMessage, Error, Tags, Warning, register  # noqa: A004
from django.core.management import get_commands
from django.db import connections

from cloudrun_jobs import backends, conf, cron, environ, locks
from cloudrun_jobs.argv.redaction import HIDDEN
from cloudrun_jobs.command import CloudRunJobs
from cloudrun_jobs.command_line import build, option_names
from cloudrun_jobs.deploy import schedules
from cloudrun_jobs.exceptions import CloudRunJobsError, InvalidArguments, InvalidJob, InvalidSettings, LockError
from cloudrun_jobs.locks.policy import DJANGO_OPTIONS
from cloudrun_jobs.registry import find_jobs, find_specs
from cloudrun_jobs.secrets import stores
from cloudrun_jobs.spec import DECLARATIONS, JobSpec, Schedule, check_declarations, resource_name
from cloudrun_jobs.suggestions import did_you_mean

TAG = "cloudrun_jobs"
SYNONYMS = {"retries": "max_retries", "cron": "schedule"}  # Of declarations that are not spelled alike.


@register(TAG)
def check_settings(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """Check `settings.CLOUDRUN_JOBS` and its backend."""
    warnings: list[CheckMessage] = [
        Warning(f"settings.{name} is not read by cloudrun_jobs.", hint=hint, id="cloudrun_jobs.W007")
        for name, hint in conf.unrecognised_settings()
    ]
    try:
        check_declarations("DEFAULTS", conf.load().defaults)
        check_declarations("RECONCILE", conf.load().reconcile)
        conf.is_test_mode()
        if conf.load().http:
            warnings += _check_http()
        warnings += _check_secrets()
        return [*warnings, *_check_backends()]
    except InvalidSettings as error:
        return [*warnings, _error(error, "cloudrun_jobs.E001")]


def _check_backends() -> Iterator[CheckMessage]:
    """Check the backends, and the routes to them. Raises `InvalidSettings`."""
    settings = conf.load()
    for pattern, alias in settings.routes.items():
        if not isinstance(pattern, str) or not isinstance(alias, str):
            where = conf.setting_name("ROUTES")
            raise InvalidSettings(f"{where}: expected aliases by patterns of names, got {pattern!r}: {alias!r}.")
        backends.declared(alias)
    backends.configured()
    is_inline = settings.environment in conf.INLINE_ENVIRONMENTS
    for alias in ("", *settings.backends):
        backend = backends.declared(alias)
        if backend.is_disabled and not is_inline:
            message = f"The backend {alias or conf.DEFAULT_ALIAS!r} is disabled: its jobs run inline."
            hint = "Unset DISABLE_CELERY, or OPTIONS['disabled'], where workers are to run them."
            yield Warning(message, hint=hint, id="cloudrun_jobs.W014")
        elif not is_inline or not (alias or backend.is_disabled):
            yield from backend.check()


@register("celery")
def check_queues(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """Check that workers listen to each queue, for `manage.py check --tag celery` only: it queries the workers."""
    if sys.argv[1:2] != ["check"] or not {"celery", "--tag=celery", "-tcelery"}.intersection(sys.argv[2:]):
        return []
    specs = find_specs()
    found: list[CheckMessage] = []
    for backend in backends.configured():
        own = [spec for spec in specs if spec.backend_alias == backend.alias]
        try:
            found += backend.check_workers(own)
        except CloudRunJobsError as error:
            found.append(_error(error, "cloudrun_jobs.W016", Warning))
    return found


def _check_http() -> list[CheckMessage]:
    from cloudrun_jobs.http import credentials  # Most projects have no HTTP API.

    backend = settings.CACHES["default"]["BACKEND"]
    if credentials.load().rate is None or not backend.endswith(("LocMemCache", "DummyCache")):
        return []
    name = conf.setting_name("HTTP", "RATE")
    message = f"{name}: {backend} is not shared, so each process limits the rate on its own, or not at all."
    hint = "Configure a cache that all processes share, such as Redis, as CACHES['default']."
    return [Warning(message, hint=hint, id="cloudrun_jobs.W011")]


def _check_secrets() -> Iterator[CheckMessage]:
    """Check `SECRETS`, and the client that secret options need. Raises `InvalidSettings`."""
    settings = conf.load()
    if environ.local_endpoint(settings.options) is not None or settings.environment in conf.INLINE_ENVIRONMENTS:
        if isinstance(settings.secrets, conf.LocalSecrets):
            stores.local(settings.secrets)
        return
    name = conf.setting_name("SECRETS")
    if settings.secrets is not None:
        message = f"{name}: expected no secrets in the environment {settings.environment!r}, got some."
        hint = "Remove it: the secrets of a cloud environment are in Secret Manager."
        yield Error(message, hint=hint, id="cloudrun_jobs.E036")
    elif not stores.has_client() and (commands := [spec.command for spec in find_specs() if spec.secret_options]):
        message = f"Secret options of {', '.join(commands)} cannot be read: Google's client is not installed."
        hint = "pip install 'django-cloudrun-jobs[secrets]'"
        yield Warning(message, hint=hint, id="cloudrun_jobs.W018")


@register(TAG)
def check_time_zones(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """Reject naive times: those of the run records are compared with the server's clock, in UTC."""
    if settings.USE_TZ:
        return []
    message = "USE_TZ is False, and run records need aware times."
    return [Error(message, hint="Set USE_TZ = True, as Django does by default.", id="cloudrun_jobs.E015")]


@register(TAG)
def check_locks(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """Check the lock backend and its options."""
    try:
        conf.load()
    except InvalidSettings:
        return []  # check_settings reports it.
    try:
        return list(locks.current().check())
    except InvalidSettings as error:
        return [_error(error, "cloudrun_jobs.E020")]


@register(TAG, deploy=True)
def check_reach_of_locks(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """Reject locks that containers would not share."""
    try:
        backend, environment = locks.current(), conf.load().environment
    except InvalidSettings:
        return []  # check_locks or check_settings reports it.
    if backend.is_shared or environment in conf.INLINE_ENVIRONMENTS:
        return []
    message = f"The environment is {environment!r}, and {type(backend).__name__} keeps locks in one process."
    hint = "Use cloudrun_jobs.locks.database.DatabaseLocks or cloudrun_jobs.locks.redis.RedisLocks."
    return [Error(message, hint=hint, id="cloudrun_jobs.E021")]


@register(Tags.database)
def check_lock_server(
    app_configs: Sequence[AppConfig] | None, databases: Sequence[str] | None = None, **kwargs: Any
) -> list[CheckMessage]:
    """Check the lock server, if `manage.py check --database default` allows queries."""
    # The first `migrate` runs without the tables, and creates them.
    if not databases or sys.argv[1:2] == ["migrate"]:
        return []
    try:
        return list(locks.current().inspect())
    except InvalidSettings:
        return []  # check_locks reports it.
    except LockError as error:
        return [_error(error, "cloudrun_jobs.W022", Warning)]


@register(Tags.database)
def check_record_tables(
    app_configs: Sequence[AppConfig] | None, databases: Sequence[str] | None = None, **kwargs: Any
) -> list[CheckMessage]:
    """Check that the tables of the run records exist, if queries are allowed."""
    from cloudrun_jobs.runs import database

    alias = database.database_alias()
    if alias not in (databases or ()) or sys.argv[1:2] == ["migrate"] or not database.tables_are_missing():
        return []
    message = f"The database {alias!r} has no tables for the run records, so no job can run."
    return [Warning(message, hint=database.migrate_hint(), id="cloudrun_jobs.W023")]


@register(TAG, deploy=True)
def check_reach_of_records(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """Warn if the containers would not share the database of the run records."""
    from cloudrun_jobs.runs import database

    alias = database.database_alias()
    try:
        environment = conf.load().environment
    except InvalidSettings:
        return []  # check_settings reports it.
    if environment in conf.INLINE_ENVIRONMENTS or connections[alias].vendor != "sqlite":
        return []
    message = f"The environment is {environment!r}, and the run records are in SQLite: each container has its own."
    hint = f"Use a server such as PostgreSQL for the database {alias!r}, in the web service and in every job."
    return [Warning(message, hint=hint, id="cloudrun_jobs.W024")]


@register(TAG)
def check_jobs(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """Check the declarations of every job, and that no two jobs have the same name in the cloud."""
    found = find_jobs()
    messages: list[CheckMessage] = [_unreadable(name, error) for name, error in found.unreadable.items()]
    try:
        messages += [message for name, job in found.jobs.items() for message in _check_job(name, job)]
        messages += _check_names(found.jobs.values())
        messages += _check_http_names(found.jobs)
        messages += _check_jobs_of_backends(found.jobs)
        messages += _check_routes(found.jobs)
    except InvalidSettings:
        pass  # check_settings reports it.
    return messages


@register(TAG, deploy=True)
def check_deployment(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """Warn if production would run jobs in the web process, or would not reconcile runs."""
    try:
        values = conf.load()
    except InvalidSettings:
        return []  # check_settings reports it.
    if values.environment in conf.INLINE_ENVIRONMENTS:
        message = f"The environment is {values.environment!r}: delay() runs jobs in the process that calls it."
        hint = "Set CLOUDRUN_JOBS['ENVIRONMENT'], or the environment variable CLOUDRUN_JOBS_ENVIRONMENT."
        return [Warning(message, hint=hint, id="cloudrun_jobs.W004")]
    if values.reconcile.get("schedule"):
        return []
    message = "No schedule reconciles runs: one whose container died stays unfinished, or is never dispatched."
    hint = "Set CLOUDRUN_JOBS['RECONCILE'] = {'schedule': '*/5 * * * *'}, and run both sync commands."
    return [Warning(message, hint=hint, id="cloudrun_jobs.W008")]


@register(TAG)
def check_test_environment(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """Warn if tests would start executions in the cloud."""
    try:
        environment = conf.load().environment
    except InvalidSettings:
        return []  # check_settings reports it.
    # Django's test runner, and pytest-django, set it before they run the checks and the tests.
    if environment in conf.INLINE_ENVIRONMENTS or not hasattr(mail, "outbox"):
        return []
    message = f"Tests run in the environment {environment!r}: delay() would start executions in the cloud."
    hint = "Set the environment 'test' for tests: CLOUDRUN_JOBS_ENVIRONMENT=test."
    return [Warning(message, hint=hint, id="cloudrun_jobs.W009")]


def _error(error: CloudRunJobsError, check: str, level: type[Error | Warning] = Error) -> CheckMessage:
    return level(error.args[0], hint=error.hint or None, id=check)


def _unreadable(name: str, error: BaseException) -> CheckMessage:
    # A warning: the command may be another app's, for a library that this project does not use.
    app = get_commands()[name]
    message = f"The management command {name!r} of the app {app} cannot be imported, so it cannot be checked."
    return Warning(message, hint=f"{type(error).__name__}: {error}", id="cloudrun_jobs.W006")


def _check_job(name: str, job: CloudRunJobs) -> Iterator[CheckMessage]:
    if job.command_name != name:
        message = f"{name}: its Command is that of {type(job).__module__}, and would run under that name."
        yield Error(
            message, hint="Subclass it: `class Command(Base): pass`.", obj=type(job), id="cloudrun_jobs.E013"
        )
        return
    if name == "web":
        message = "web: the image's entrypoint starts the web server for this name."
        hint = "Rename the command: docker/server/entrypoint.sh runs any other name as a job."
        yield Warning(message, hint=hint, obj=type(job), id="cloudrun_jobs.W010")
    try:
        spec = job.spec
    except InvalidJob as error:
        for problem in error.problems:
            yield Error(f"{error.command}: {problem}", hint=problem.hint or None, obj=type(job), id=problem.id)
    else:
        yield from _check_options(job, spec)
        yield from _check_starts(job, spec)
        yield from _check_backend(job, spec)
    for attribute in sorted(vars(type(job)).keys() - {*DECLARATIONS, *dir(CloudRunJobs)}):
        close = get_close_matches(attribute.lower(), DECLARATIONS, n=1, cutoff=0.8)
        if meant := SYNONYMS.get(attribute) or next(iter(close), None):
            message = f"{name}: {attribute!r} is not a declaration."
            yield Warning(message, hint=f"Did you mean {meant!r}?", obj=type(job), id="cloudrun_jobs.W005")


def _check_backend(job: CloudRunJobs, spec: JobSpec) -> Iterator[CheckMessage]:
    """Check that the job's backend exists, and can run it as declared."""
    try:
        backend = backends.declared(spec.backend_alias)
    except InvalidSettings as error:
        if spec.backend is not None:  # check_settings reports the others.
            message = f"{spec.command}: backend: {error.args[0]}"
            yield Error(message, hint=error.hint or None, obj=type(job), id="cloudrun_jobs.E026")
        return
    for problem in backend.problems(spec):
        yield Error(f"{spec.command}: {problem}", hint=problem.hint or None, obj=type(job), id=problem.id)
    if ignored := [name for name in backend.ignored_declarations if hasattr(type(job), name)]:
        message = f"{spec.command}: {type(backend).__name__} ignores {', '.join(ignored)}."
        hint = "Declare them where the workers are deployed."
        yield Warning(message, hint=hint, obj=type(job), id="cloudrun_jobs.W013")


def _check_routes(jobs: Iterable[str]) -> Iterator[CheckMessage]:
    """Warn of patterns that match no job: they may be misspelt."""
    names = list(jobs)
    for pattern in conf.load().routes:
        if isinstance(pattern, str) and not fnmatch.filter(names, pattern):
            message = f"{conf.setting_name('ROUTES')}: {pattern!r} matches no job."
            yield Warning(message, hint=did_you_mean(pattern, names) or None, id="cloudrun_jobs.W017")


def _check_jobs_of_backends(jobs: Mapping[str, CloudRunJobs]) -> Iterator[CheckMessage]:
    if conf.load().environment in conf.INLINE_ENVIRONMENTS:
        return
    specs: list[JobSpec] = []
    for job in jobs.values():
        with suppress(InvalidJob):  # _check_job reports it.
            specs.append(job.spec)
    for backend in backends.configured():
        yield from backend.check_jobs([spec for spec in specs if spec.backend_alias == backend.alias])


def _check_options(job: CloudRunJobs, spec: JobSpec) -> Iterator[CheckMessage]:
    try:
        names = option_names(job)
    except Exception:  # noqa: BLE001  (the command's own code, which may query a database without tables)
        return
    own = names - DJANGO_OPTIONS - {"help"}
    for attribute in ("lock_args", "http_options", "secret_options"):
        for name in sorted({*(getattr(spec, attribute) or ())} - own):
            hint = did_you_mean(name, own - {"version"})
            message = f"{job.command_name}: {attribute}: expected names of its options, got {name!r}."
            yield Error(message, hint=hint, obj=type(job), id="cloudrun_jobs.E006")
    if "idempotency_key" in names:
        message = f"{job.command_name}: idempotency_key is a parameter of delay() and an option of the command."
        yield Error(message, hint="Rename the command's option.", obj=type(job), id="cloudrun_jobs.E014")


def _check_starts(job: CloudRunJobs, spec: JobSpec) -> Iterator[CheckMessage]:
    """Check the schedules and the default arguments, which start the job without `delay()`."""
    for schedule in spec.schedules:
        yield from _check_schedule(job, spec, schedule)
    if spec.args:
        yield from _check_arguments(job, "args", spec.args, partial(build, job, (), spec.args, {}))


def _check_schedule(job: CloudRunJobs, spec: JobSpec, schedule: Schedule) -> Iterator[CheckMessage]:
    """Check the times of a schedule, and that the command accepts its arguments."""
    what, zone = f"the schedule {schedule.cron!r}", str(schedule.time_zone)
    yield from _check_arguments(job, what, schedule.args, partial(schedules.argv, job, spec, schedule))
    if change := cron.next_dst_conflict(schedule.cron, zone, datetime.now(UTC)):
        day = f"{change.astimezone(ZoneInfo(zone)):%d %b %Y}"
        message = f"{job.command_name}: {what} names a time that {zone} skips or repeats, next on {day}."
        hint = "Cloud Scheduler does not define what happens then: choose another hour, or the zone Etc/UTC."
        yield Warning(message, hint=hint, obj=type(job), id="cloudrun_jobs.W001")
    if cron.names_both_days(schedule.cron):
        message = f"{job.command_name}: {what} names days of the month and of the week, and runs on either."
        yield Warning(message, hint="Write '*' for one of the two.", obj=type(job), id="cloudrun_jobs.W002")


def _check_arguments(
    job: CloudRunJobs, what: str, args: Mapping[str, Any], check: Callable[[], Sequence[str]]
) -> Iterator[CheckMessage]:
    try:
        check()
    except InvalidArguments as error:
        prefix = f"{job.command_name}: "
        message = f"{prefix}{what} cannot start it. {error.args[0].removeprefix(prefix)}"
        declare = "Declare arguments: schedule = [Schedule('...', args={...})]."
        visible = {name: HIDDEN if name in job.spec.secret_options else value for name, value in args.items()}
        hint = error.hint or (f"Correct its args, which are {visible}." if args else declare)
        yield Error(message, hint=hint, obj=type(job), id="cloudrun_jobs.E009")
    except Exception:  # noqa: BLE001  (the command's parser may query a database without tables)
        return


def _check_names(jobs: Iterable[CloudRunJobs]) -> Iterator[CheckMessage]:
    first: dict[str, str] = {}
    for job in jobs:
        command, name = job.command_name, _name_of(job)
        other = first.setdefault(name, command)
        if other != command:
            message = f"{other} and {command} would both be the Cloud Run job {name!r}."
            yield Error(message, hint="Rename one, by its module or `job_name`.", id="cloudrun_jobs.E007")


def _name_of(job: CloudRunJobs) -> str:
    try:
        return job.spec.name
    except InvalidJob:
        return resource_name(job.command_name, conf.load().environment)


def _check_http_names(jobs: Mapping[str, CloudRunJobs]) -> Iterator[CheckMessage]:
    """Check the names of jobs, and those in the credentials, if the HTTP API is in use."""
    if not conf.load().http:
        return
    from cloudrun_jobs.http import credentials  # Most projects have no HTTP API.
    from cloudrun_jobs.http.paths import reserved_words

    configured = credentials.load()
    listed = [(f"TOKENS: {token.name!r}", token.commands) for token in configured.tokens]
    if configured.oidc is not None:
        listed.append(("OIDC: the accounts", configured.oidc.commands))
    for who, commands in listed:
        for name in sorted((commands or set()) - jobs.keys()):
            message = f"{conf.setting_name('HTTP')}: {who} may use {name!r}, which is no job."
            yield Warning(message, hint=did_you_mean(name, jobs) or None, id="cloudrun_jobs.W012")
    for name in sorted(reserved_words() & jobs.keys()):
        message = f"{name}: is a reserved word in URLs of the HTTP API."
        yield Error(message, hint="Rename the command.", obj=type(jobs[name]), id="cloudrun_jobs.E018")
