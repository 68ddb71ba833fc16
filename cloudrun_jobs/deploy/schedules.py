"""The schedules that jobs declare, as entries of Cloud Scheduler."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from cloudrun_jobs import conf, cron, environ
from cloudrun_jobs.backends.cloudrun import targets
from cloudrun_jobs.command import CloudRunJobs
from cloudrun_jobs.command_line import build
from cloudrun_jobs.deploy.plan import Desired, OwnershipLabel
from cloudrun_jobs.exceptions import InvalidSettings
from cloudrun_jobs.spec import JobSpec, Schedule
from cloudrun_jobs.spec.tick import ScheduleTick

if TYPE_CHECKING:
    from cloudrun_jobs.backends.cloudrun import CloudRunBackend


def declared(jobs: Iterable[CloudRunJobs], backend: CloudRunBackend) -> list[Desired]:
    """Return the entries of these jobs; raises `InvalidArguments` for arguments that one would not take."""
    return [entry for job in jobs for entry in _entries(job, job.spec, backend)]


def passed(job: CloudRunJobs, spec: JobSpec, schedule: Schedule) -> tuple[str, ...]:
    """Return what a schedule passes to `manage.py`, the command's name first."""
    if not schedule.args:
        return (spec.command,)  # Whether that suffices, the system checks have asked.
    return checked(job, spec, schedule)


def checked(job: CloudRunJobs, spec: JobSpec, schedule: Schedule) -> tuple[str, ...]:
    """Return the same; raise `InvalidArguments` if the command does not take what the schedule gives it."""
    return build(job, (), schedule.args, {environ.SCHEDULE_VARIABLE: _tick(spec, schedule)})


def entry_id(spec: JobSpec, schedule: Schedule) -> str:
    return f"{spec.name}-{schedule.name}" if schedule.name else spec.name


def _tick(spec: JobSpec, schedule: Schedule) -> str:
    return ScheduleTick(entry_id(spec, schedule), schedule.cron, str(schedule.time_zone)).encode()


def _entries(job: CloudRunJobs, spec: JobSpec, backend: CloudRunBackend) -> Iterator[Desired]:
    for schedule in spec.schedules:
        yield _entry(spec, schedule, passed(job, spec, schedule), backend)


def _entry(spec: JobSpec, schedule: Schedule, args: tuple[str, ...], backend: CloudRunBackend) -> Desired:
    optional = dict(_delivery(spec))
    fields = {
        "schedule": schedule.cron,
        "time_zone": schedule.time_zone,
        **_target(spec, backend),
        "method": "POST",
        "content_type": "application/json",
        "args": args,
        "tick": _tick(spec, schedule),
        "to_service": spec.target == "service",
        **optional,
    }
    mark = OwnershipLabel(environment=spec.environment, command=spec.command, fields=tuple(sorted(optional)))
    return Desired(
        id=entry_id(spec, schedule),
        label=f"{spec.command} [{schedule.name}]" if schedule.name else spec.command,
        mark=mark,
        fields=fields,
        summary=partial(_summary, spec, schedule),
        summarised=frozenset({"schedule", "time_zone"}),
    )


def _delivery(spec: JobSpec) -> Iterator[tuple[str, Any]]:
    """Yield what is only written if it is declared."""
    if spec.attempt_deadline is not None:
        yield "attempt_deadline", spec.attempt_deadline
    for name, value in (spec.retry_config or {}).items():
        # Durations may be declared in seconds.
        yield name, timedelta(seconds=value) if name.endswith("duration") and isinstance(value, int) else value


def _target(spec: JobSpec, backend: CloudRunBackend) -> dict[str, Any]:
    account = backend.scheduler_service_account or backend.service_account or spec.service_account
    if account is None:
        raise InvalidSettings(
            f"{spec.command}: no service account for Cloud Scheduler to start it as.",
            hint=f"Set {conf.setting_name('OPTIONS', 'scheduler_service_account')}.",
        )
    if spec.target == "service":
        return _service_target(spec, backend, account)
    settings = backend.settings
    url = targets.job_url(settings.project, settings.region, spec.name)
    return {"url": url, "token": targets.AuthToken(account)}


def _service_target(spec: JobSpec, backend: CloudRunBackend, account: str) -> dict[str, Any]:
    if backend.service_url is None:
        raise InvalidSettings(
            f"{spec.command}: runs in the web service, whose URL is not known.",
            hint=f"Set {conf.setting_name('OPTIONS', 'service_url')}.",
        )
    url = targets.service_url(backend.service_url, spec.command)
    return {"url": url, "token": targets.AuthToken(account, backend.service_url.rstrip("/"))}


def _summary(spec: JobSpec, schedule: Schedule) -> str:
    zone = schedule.time_zone or spec.time_zone
    words = [schedule.cron, zone]
    if due := cron.next_time(schedule.cron, zone, datetime.now(UTC)):
        words.append(f"next {due.astimezone(ZoneInfo(zone)):%a %d %b %Y %H:%M}")
    if spec.is_shortened:
        words.append(f"(named {spec.name}: shortened to 63 characters)")
    return "  ".join(words)
