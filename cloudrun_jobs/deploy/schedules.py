"""The Scheduler jobs that the code declares: one for each schedule."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from typing import TYPE_CHECKING

from cloudrun_jobs import conf, environ
from cloudrun_jobs.backends.cloudrun import targets
from cloudrun_jobs.command import CloudRunJobs
from cloudrun_jobs.command_line import build
from cloudrun_jobs.deploy import jobs as job_declarations
from cloudrun_jobs.deploy.desired import DesiredSchedulerJob
from cloudrun_jobs.deploy.plan import flatten
from cloudrun_jobs.exceptions import InvalidSettings
from cloudrun_jobs.spec import JobSpec, Schedule
from cloudrun_jobs.spec.tick import ScheduleTick

if TYPE_CHECKING:
    from cloudrun_jobs.backends.cloudrun import CloudRunBackend


def desired(jobs: Iterable[CloudRunJobs], backend: CloudRunBackend) -> list[DesiredSchedulerJob]:
    """Return the Scheduler jobs. Raises `InvalidArguments` for arguments that a command does not accept."""
    specs = [(job, job.spec) for job in jobs]
    own = [(job, spec) for job, spec in specs if is_deployed(spec, backend)]
    return [_desired(job, spec, schedule, backend) for job, spec in own for schedule in spec.schedules]


def is_deployed(spec: JobSpec, backend: CloudRunBackend) -> bool:
    """Return True if Cloud Scheduler serves the schedules of the job, by this backend or the web service."""
    return spec.target == "service" or job_declarations.is_deployed(spec, backend)


def argv(job: CloudRunJobs, spec: JobSpec, schedule: Schedule) -> tuple[str, ...]:
    """Return the command's name and the schedule's arguments. Raises `InvalidArguments`."""
    return build(job, (), schedule.args, {environ.SCHEDULE_VARIABLE: tick(spec, schedule)})


def start_arguments(job: CloudRunJobs, spec: JobSpec, schedule: Schedule) -> tuple[str, ...]:
    """Return the arguments that the schedule's Scheduler job sends. Raises `InvalidArguments`."""
    # The system checks have checked a command without arguments.
    return argv(job, spec, schedule) if schedule.args else (spec.command,)


def _container_args(job: CloudRunJobs, spec: JobSpec, schedule: Schedule) -> tuple[str, ...]:
    """Return the arguments in the body: with the script for a container, without it for the web service."""
    arguments = start_arguments(job, spec, schedule)
    return (spec.script, *arguments) if spec.script and spec.target != "service" else arguments


def tick(spec: JobSpec, schedule: Schedule) -> str:
    """Return the variable that names the schedule to the executions it starts."""
    return ScheduleTick(spec.scheduler_job_id(schedule), schedule.cron, str(schedule.time_zone)).encode()


def _desired(
    job: CloudRunJobs, spec: JobSpec, schedule: Schedule, backend: CloudRunBackend
) -> DesiredSchedulerJob:
    url, token = _target(spec, backend)
    # Durations may be declared in seconds.
    retries = {
        name: timedelta(seconds=value) if name.endswith("duration") and isinstance(value, int) else value
        for name, value in (spec.retry_config or {}).items()
    }
    declared = flatten({"attempt_deadline": spec.delivery_deadline, "retry_config": retries})
    return DesiredSchedulerJob(
        id=spec.scheduler_job_id(schedule),
        label=f"{spec.command} [{schedule.name}]" if schedule.name else spec.command,
        **job_declarations.ownership_and_note(spec, declared),
        schedule=schedule.cron,
        time_zone=schedule.time_zone or spec.time_zone,
        url=url,
        token=token,
        args=_container_args(job, spec, schedule),
        tick=tick(spec, schedule),
        to_service=spec.target == "service",
        attempt_deadline=spec.delivery_deadline,
        retry_config=retries,
    )


def _target(spec: JobSpec, backend: CloudRunBackend) -> tuple[str, targets.AuthToken]:
    """Return the URL that the Scheduler job calls, and the token of the request."""
    account = backend.scheduler_service_account or backend.service_account or spec.service_account
    if account is None:
        raise InvalidSettings(
            f"{spec.command}: no service account is set for Cloud Scheduler to start the job.",
            hint=f"Set {conf.setting_name('OPTIONS', 'scheduler_service_account')}.",
        )
    if spec.target != "service":
        url = targets.job_url(backend.settings.project, backend.settings.region, spec.name)
        return url, targets.AuthToken(account)
    if backend.service_url is None:
        raise InvalidSettings(
            f"{spec.command}: runs in the web service, but the service's URL is not set.",
            hint=f"Set {conf.setting_name('OPTIONS', 'service_url')}.",
        )
    url = targets.service_url(backend.service_url, spec.command)
    return url, targets.AuthToken(account, backend.service_url.rstrip("/"))
