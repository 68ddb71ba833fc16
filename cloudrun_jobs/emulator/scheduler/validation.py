"""Validate scheduler jobs: set defaults, check limits and parse the schedule."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from google.cloud import scheduler_v1

from cloudrun_jobs.emulator import names
from cloudrun_jobs.emulator.errors import ServiceError, invalid
from cloudrun_jobs.emulator.http_delivery import MAX_URL_LENGTH, METHODS_WITH_BODY, check_headers, is_http_url
from cloudrun_jobs.emulator.scheduler import cron, english

if TYPE_CHECKING:
    from cloudrun_jobs.emulator.scheduler.calendar import Schedule

JOB_ID = re.compile(r"[A-Za-z0-9_-]{1,500}")
MAX_DESCRIPTION_LENGTH = 500
MAX_JOB_BYTES = 1 << 20
MAX_RETRIES = 5
MIN_ATTEMPT_DEADLINE, MAX_ATTEMPT_DEADLINE = timedelta(seconds=15), timedelta(minutes=30)
DEFAULT_ATTEMPT_DEADLINE = timedelta(minutes=3)
UNSUPPORTED_TARGETS = {"pubsub_target": "Pub/Sub", "app_engine_http_target": "App Engine"}
INVALID_SCHEDULE_MESSAGE = "Schedule or time zone is invalid."


def with_defaults(given: scheduler_v1.Job) -> scheduler_v1.Job:
    """Return the job with the service's defaults."""
    job = scheduler_v1.Job(given)
    job.time_zone = job.time_zone or "Etc/UTC"
    job.attempt_deadline = job.attempt_deadline or DEFAULT_ATTEMPT_DEADLINE
    if "http_target" in job and job.http_target.http_method == scheduler_v1.HttpMethod.HTTP_METHOD_UNSPECIFIED:
        job.http_target.http_method = scheduler_v1.HttpMethod(scheduler_v1.HttpMethod.POST)
    retry = job.retry_config
    retry.max_retry_duration = retry.max_retry_duration or timedelta(0)
    retry.min_backoff_duration = retry.min_backoff_duration or timedelta(seconds=5)
    retry.max_backoff_duration = retry.max_backoff_duration or timedelta(hours=1)
    retry.max_doublings = retry.max_doublings or 5
    return job


def check(job: scheduler_v1.Job) -> None:
    """Raise INVALID_ARGUMENT for a job that the service would reject."""
    if not JOB_ID.fullmatch(names.short(job.name)):
        raise invalid(f"Job name must end with an id of the form {JOB_ID.pattern}, got {names.short(job.name)!r}.")
    if len(job.description) > MAX_DESCRIPTION_LENGTH:
        raise invalid(f"Job.description must be at most {MAX_DESCRIPTION_LENGTH} characters long.")
    if not MIN_ATTEMPT_DEADLINE <= job.attempt_deadline <= MAX_ATTEMPT_DEADLINE:
        raise invalid("Job.attempt_deadline must be between 15s and 1800s.")
    if not 0 <= job.retry_config.retry_count <= MAX_RETRIES:
        raise invalid(f"Job.retry_config.retry_count must be between 0 and {MAX_RETRIES}.")
    _check_target(job)
    if scheduler_v1.Job.pb(job).ByteSize() > MAX_JOB_BYTES:
        raise invalid("Job size must be at most 1 MB.")


def schedule_of(job: scheduler_v1.Job) -> Schedule:
    """Parse the schedule of a job, in either of the two dialects."""
    try:
        # The API's definition spells it in lower case, unlike the time zone database.
        zone = ZoneInfo("UTC" if job.time_zone == "utc" else job.time_zone)
    except (KeyError, ValueError, OSError) as error:
        raise invalid(INVALID_SCHEDULE_MESSAGE) from error
    try:
        return english.parse(job.schedule, zone) if is_english_like(job) else cron.parse(job.schedule, zone)
    except cron.InvalidSchedule as error:
        raise invalid(INVALID_SCHEDULE_MESSAGE) from error


def is_english_like(job: scheduler_v1.Job) -> bool:
    # "1,3 of jan 12:34" starts like a cron expression, but no cron expression has a colon.
    return job.schedule[:1].isalpha() or ":" in job.schedule


def _check_target(job: scheduler_v1.Job) -> None:
    for field, service in UNSUPPORTED_TARGETS.items():
        if field in job:
            raise ServiceError("UNIMPLEMENTED", f"Job.{field} is not supported: the emulator has no {service}.")
    if "http_target" not in job:
        raise invalid("Job.target is required: http_target, pubsub_target or app_engine_http_target.")
    target = job.http_target
    if not is_http_url(target.uri):
        raise invalid(f"Job.http_target.uri must be an http or https URL of at most {MAX_URL_LENGTH} characters.")
    if target.body and target.http_method.name not in METHODS_WITH_BODY:
        raise invalid("Job.http_target.body is allowed only with the methods POST, PUT and PATCH.")
    check_headers(target.headers, "Job.http_target.headers")
