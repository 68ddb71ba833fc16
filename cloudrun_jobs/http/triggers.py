"""Run the jobs with `target = "service"` during the requests of Cloud Scheduler and other callers."""

from __future__ import annotations

import re
from datetime import datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from asgiref.sync import async_to_sync
from django.core.handlers.asgi import ASGIRequest
from django.http import HttpResponseBase
from django.urls import reverse

from cloudrun_jobs import argv, command_line, enqueue
from cloudrun_jobs.deploy import schedules
from cloudrun_jobs.exceptions import InvalidArguments, RecordTablesMissing, RecordUnavailable
from cloudrun_jobs.execution import termination
from cloudrun_jobs.http.audit import audit
from cloudrun_jobs.http.authentication import Caller
from cloudrun_jobs.http.body import read_object
from cloudrun_jobs.http.endpoint import json_response
from cloudrun_jobs.http.errors import HttpError, bad_request, not_found, unprocessable
from cloudrun_jobs.http.jobs import job_options
from cloudrun_jobs.models import JobRun, Status, Trigger
from cloudrun_jobs.process.deferral import in_main_thread
from cloudrun_jobs.registry import find_job, find_jobs
from cloudrun_jobs.runs.requester import requested_by
from cloudrun_jobs.spec.tick import SCHEDULER_JOB_PATTERN, ScheduleTick

if TYPE_CHECKING:
    from django.http import HttpRequest

    from cloudrun_jobs.command import CloudRunJobs

RETRY_AFTER_SECONDS = 30
NAME_HEADER, TIME_HEADER = "x-cloudscheduler-jobname", "x-cloudscheduler-scheduletime"


def list_triggers(request: HttpRequest, caller: Caller) -> HttpResponseBase:
    """Return the jobs that run during a request, with their options."""
    commands = caller.commands
    jobs = {
        name: job
        for name, job in find_jobs().jobs.items()
        if job.spec.target == "service" and (commands is None or name in commands)
    }
    return json_response({"endpoints": [_described(name, job) for name, job in jobs.items()]})


def _described(name: str, job: CloudRunJobs) -> dict[str, Any]:
    parser, spec = argv.parser_of(job), job.spec
    actions = {action.dest: action for action in parser._actions}
    return {
        "command": name,
        "url": reverse("cloudrun_jobs:trigger", args=(name,)),
        "help": job.help,
        "options": {option: actions[option].help or "" for option in spec.http_options if option in actions},
        "schedules": [{"cron": each.cron, "time_zone": each.time_zone} for each in spec.schedules],
        "dry_run": "dry_run" in actions,
    }


def run_job(request: HttpRequest, caller: Caller, name: str) -> HttpResponseBase:
    """Run the command now, and return its result."""
    caller.check("trigger", name)
    job = find_job(name)
    if job is None or job.spec.target != "service":
        raise not_found(f"There is no job {name[:100]!r} with target = 'service'.")
    arguments, test_mode = _arguments(job, read_object(request, any_type=True))
    tick = _tick(request) if caller.is_service else None
    values: dict[str, Any] = {"trigger": Trigger.HTTP}
    if tick is not None:
        values = {"trigger": Trigger.SCHEDULE, "schedule": tick[0], "scheduled_for": tick[1]}
    if isinstance(request, ASGIRequest):
        # These servers handle signals only once they serve. Their event loop is in the main thread.
        async_to_sync(_follow_server)()
    try:
        with requested_by(caller.name):
            run, is_duplicate = enqueue.run_here(job, arguments, test_mode=test_mode, **values)
    except (RecordUnavailable, RecordTablesMissing):
        raise _unavailable("The run cannot be recorded, so it has not started.") from None
    if not is_duplicate:
        audit(caller, "start", run)
    return _answer(run, is_duplicate=is_duplicate)


async def _follow_server() -> None:
    if in_main_thread():
        termination.follow_server()


def _arguments(job: CloudRunJobs, body: dict[str, Any]) -> tuple[tuple[str, ...], bool]:
    """Return the arguments after `manage.py`, and whether the body asks for a test run. Raises `HttpError`."""
    if body.keys() == {"args", "schedule"} and ScheduleTick.decode(str(body["schedule"])):
        return _scheduled_arguments(job, body["args"]), False
    test_mode = body.pop("test_mode", False) if hasattr(job, "test_mode") else False
    if not isinstance(test_mode, bool):
        raise unprocessable("The body is invalid.", fields={"test_mode": "Expected true or false."})
    try:
        return command_line.build(job, (), job_options(job, body), {}), test_mode
    except InvalidArguments as error:
        raise unprocessable(error.args[0], hint=error.hint) from None


def _scheduled_arguments(job: CloudRunJobs, given: Any) -> tuple[str, ...]:
    """Return the arguments of one of the job's schedules, which need not be in `http_options`."""
    spec = job.spec
    for schedule in spec.schedules:
        arguments = schedules.start_arguments(job, spec, schedule)
        if list(arguments) == given:
            return arguments
    message = "args: no schedule of the job declares these arguments."
    raise unprocessable(message, hint="Run `manage.py sync_cloudrun_schedules` after each deployment.")


def _tick(request: HttpRequest) -> tuple[str, datetime] | None:
    """Return the Scheduler job and the due time that Cloud Scheduler names; None if it names none."""
    name, time = request.headers.get(NAME_HEADER), request.headers.get(TIME_HEADER)
    if name is None or time is None:
        return None
    try:
        due = datetime.fromisoformat(time)
    except ValueError:
        due = None
    if due is None or due.tzinfo is None or not re.fullmatch(SCHEDULER_JOB_PATTERN, name):
        raise bad_request("invalid_request", "Expected the X-CloudScheduler headers that Cloud Scheduler sends.")
    return name, due


def _answer(run: JobRun, *, is_duplicate: bool) -> HttpResponseBase:
    """Return the outcome. A 2xx tells Cloud Scheduler that the work is done."""
    if not run.is_finished:
        raise _unavailable(f"An earlier delivery is running as {run.pk}.")
    extra = {"duplicate": True} if is_duplicate else {}
    url = reverse("cloudrun_jobs:run", args=(run.pk,))
    if run.status == Status.SUCCEEDED:
        return json_response({"status": "success", "result": run.return_value, **extra}, Location=url)
    if run.status == Status.SKIPPED:
        return json_response({"status": "skipped", "result": None, **extra}, Location=url)
    error = run.error_message or run.error_class or f"The run has the status {run.status}."
    data = {"status": "error", "error": error, **extra}
    return json_response(data, HTTPStatus.INTERNAL_SERVER_ERROR, Location=url)


def _unavailable(message: str) -> HttpError:
    headers = {"Retry-After": str(RETRY_AFTER_SECONDS)}
    return HttpError(HTTPStatus.SERVICE_UNAVAILABLE, "unavailable", message, headers=headers)
