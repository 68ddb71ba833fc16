"""Validate queues and tasks: set defaults, check limits and names, with the messages of the service."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from google.cloud import tasks_v2

from cloudrun_jobs.emulator import names
from cloudrun_jobs.emulator.errors import ServiceError, invalid
from cloudrun_jobs.emulator.http_delivery import (
    MAX_URL_LENGTH,
    METHODS_WITH_BODY,
    check_headers,
    forwarded,
    is_http_url,
)
from cloudrun_jobs.emulator.project.locations import check_scheduler_region

if TYPE_CHECKING:
    from collections.abc import Callable

REFERENCE = "https://cloud.google.com/tasks/docs/reference/rest/v2/projects.locations.queues"
PARENT = re.compile(r"projects/[^/]+/locations/[^/]+")
QUEUE_NAME = re.compile(rf"{PARENT.pattern}/queues/[A-Za-z0-9-]{{1,100}}")
QUEUE_FORMAT = '"projects/<PROJECT_ID>/locations/<LOCATION_ID>/queues/<QUEUE_ID>'
TASK_ID = re.compile(r"[A-Za-z0-9_-]{1,500}")
USER_AGENT = "Google-Cloud-Tasks"
DEFAULT_RATE, MAX_RATE = 500.0, 500.0  # Dispatches per second.
DEFAULT_CONCURRENCY, MAX_CONCURRENCY = 1000, 5000
MIN_BURST = 10
DEFAULT_ATTEMPTS = 100
DEFAULT_DOUBLINGS = 16
DEFAULT_MIN_BACKOFF, DEFAULT_MAX_BACKOFF = timedelta(seconds=0.1), timedelta(hours=1)
MIN_DEADLINE, MAX_DEADLINE = timedelta(seconds=15), timedelta(minutes=30)
DEFAULT_DEADLINE = timedelta(minutes=10)
MAX_DELAY = timedelta(hours=720)
MAX_TASK_BYTES = 100 * 1024


def queue_with_defaults(given: tasks_v2.Queue) -> tasks_v2.Queue:
    """Return the queue with the service's defaults, or raise INVALID_ARGUMENT."""
    if "http_target" in given:
        raise ServiceError("UNIMPLEMENTED", "Queue.http_target is not supported by the emulator.")
    check_retry_config(given.retry_config)
    queue = tasks_v2.Queue(given)
    limits, retry = queue.rate_limits, queue.retry_config
    limits.max_dispatches_per_second = limits.max_dispatches_per_second or DEFAULT_RATE
    limits.max_concurrent_dispatches = limits.max_concurrent_dispatches or DEFAULT_CONCURRENCY
    retry.max_attempts = retry.max_attempts or DEFAULT_ATTEMPTS
    retry.max_doublings = retry.max_doublings or DEFAULT_DOUBLINGS
    retry.min_backoff = retry.min_backoff or min(DEFAULT_MIN_BACKOFF, retry.max_backoff or DEFAULT_MIN_BACKOFF)
    retry.max_backoff = retry.max_backoff or max(DEFAULT_MAX_BACKOFF, retry.min_backoff)
    _check_rate_limits(limits)
    if not 0 <= queue.stackdriver_logging_config.sampling_ratio <= 1:
        raise invalid("StackdriverLoggingConfig.samplingRatio must be between [0.0, 1.0].")
    limits.max_burst_size = max(MIN_BURST, int(limits.max_dispatches_per_second / 5))
    return queue


def _check_rate_limits(limits: tasks_v2.RateLimits) -> None:
    for field, value, maximum in (
        ("maxDispatchesPerSecond", limits.max_dispatches_per_second, MAX_RATE),
        ("maxConcurrentDispatches", limits.max_concurrent_dispatches, MAX_CONCURRENCY),
    ):
        if value < 0:
            raise invalid(f"RateLimits.{field} cannot be negative.")
        if value > maximum:
            raise invalid(f"RateLimits.{field} must be less than or equal to {maximum:.0f}.")


def check_retry_config(retry: tasks_v2.RetryConfig) -> None:
    zero = timedelta(0)
    if retry.max_attempts < -1:
        raise invalid("RetryConfig.maxAttempts must be greater or equal to -1.")
    if retry.max_doublings < 0:
        raise invalid("RetryConfig.maxDoublings cannot be negative.")
    for field, value in (
        ("minBackoff", retry.min_backoff),
        ("maxBackoff", retry.max_backoff),
        ("maxRetryDuration", retry.max_retry_duration),
    ):
        if (value or zero) < zero:
            raise invalid(f"RetryConfig.{field} cannot be negative.")
    if retry.min_backoff and retry.max_backoff and retry.min_backoff > retry.max_backoff:
        raise invalid("RetryConfig.minBackoff must be less than or equal to RetryConfig.maxBackoff.")


def check_queue_name(name: str) -> str:
    if not QUEUE_NAME.fullmatch(name):
        raise _with_help(
            f'Queue name must be formatted: {QUEUE_FORMAT}".', "Definition of queue name", "#Queue.FIELDS.name"
        )
    check_scheduler_region(names.location_of(name).region)
    return name


def check_parent(parent: str) -> str:
    if not PARENT.fullmatch(parent):
        raise invalid("Invalid resource field value in the request.")
    check_scheduler_region(names.location_of(parent).region)
    return parent


def check_task_name(name: str) -> str:
    queue, collection, task_id = name.rpartition("/tasks/")
    if not collection or not QUEUE_NAME.fullmatch(queue) or "/" in task_id:
        raise invalid(f'Task name must be formatted: {QUEUE_FORMAT}/tasks/<TASK_ID>"')
    return name


def check_new_task_name(name: str, queue: str) -> None:
    named_queue, _, task_id = check_task_name(name).rpartition("/tasks/")
    if named_queue != queue:
        raise invalid(
            f"The queue name from request ('{queue}') must be the same as the queue name in the named task "
            f"('{named_queue}')."
        )
    if not TASK_ID.fullmatch(task_id):
        raise _with_help(
            f'Task ID "{task_id}" can contain only letters ([A-Za-z]), numbers ([0-9]), hyphens (-), or '
            "underscores (_). Task ID must between 1 and 500 characters.",
            "Definition of task ID",
            ".tasks#Task.FIELDS.name",
        )


def new_task(given: tasks_v2.Task, queue: str, now: datetime, new_id: Callable[[], str]) -> tasks_v2.Task:
    """Return the task that CreateTask stores, or raise INVALID_ARGUMENT."""
    task = tasks_v2.Task(
        name=given.name or f"{queue}/tasks/{new_id()}",
        http_request=_http_request(given),
        create_time=now.replace(microsecond=0),
        dispatch_deadline=given.dispatch_deadline or DEFAULT_DEADLINE,
        schedule_time=_schedule_time(given, now),
    )
    check_new_task_name(task.name, queue)
    if "retry_config" in given:
        check_retry_config(given.retry_config)
        task.retry_config = given.retry_config
    if not MIN_DEADLINE <= task.dispatch_deadline <= MAX_DEADLINE:
        raise invalid("Task.dispatchDeadline must be between [15s, 30m].")
    if tasks_v2.Task.pb(task).ByteSize() > MAX_TASK_BYTES:
        raise invalid("Task size too large")
    return task


def _schedule_time(given: tasks_v2.Task, now: datetime) -> datetime:
    if "schedule_time" not in given:
        return now
    at: datetime = given.schedule_time
    if at - now > MAX_DELAY:
        raise invalid(
            f"The Task.scheduleTime, {_in_pacific_time(at)}, is too far in the future. "
            "Schedule time must be no more than 720h in the future."
        )
    return max(at, now)


def _in_pacific_time(at: datetime) -> str:
    try:
        zone = ZoneInfo("America/Los_Angeles")
    except ZoneInfoNotFoundError:  # A system without time zones.
        return at.isoformat(timespec="seconds")
    return at.astimezone(zone).isoformat(timespec="seconds")


def _http_request(given: tasks_v2.Task) -> tasks_v2.HttpRequest:
    if "app_engine_http_request" in given:
        raise ServiceError(
            "UNIMPLEMENTED", "Task.app_engine_http_request is not supported: the emulator has no App Engine."
        )
    if "http_request" not in given:
        raise invalid("Task.http_request or Task.app_engine_http_request is required.")
    request = tasks_v2.HttpRequest(given.http_request)
    if request.http_method == tasks_v2.HttpMethod.HTTP_METHOD_UNSPECIFIED:
        request.http_method = tasks_v2.HttpMethod(tasks_v2.HttpMethod.POST)
    _check_url(request.url)
    if request.body and request.http_method.name not in METHODS_WITH_BODY:
        raise invalid("HttpRequest.body is allowed only with the methods POST, PUT and PATCH.")
    check_headers(request.headers, "HttpRequest.headers")
    request.headers = {**forwarded(request.headers), "User-Agent": USER_AGENT}
    return request


def _check_url(url: str) -> None:
    if not url:
        raise invalid("HttpRequest.url is required.")
    if not url.startswith(("http://", "https://")):
        raise invalid("HttpTarget.url must start with 'http://' or 'https://'.")
    if not is_http_url(url):
        raise invalid(f"HttpRequest.url must be a URL of at most {MAX_URL_LENGTH} characters.")


def _with_help(message: str, description: str, fragment: str) -> ServiceError:
    link = {"description": description, "url": REFERENCE + fragment}
    details = [{"@type": "type.googleapis.com/google.rpc.Help", "links": [link]}]
    return ServiceError("INVALID_ARGUMENT", message, details)
