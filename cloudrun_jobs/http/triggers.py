"""Run jobs with `target = "service"`, or send them to their queue, at requests of Cloud Scheduler and others."""

from __future__ import annotations

import re
from datetime import datetime
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from asgiref.sync import async_to_sync
from django.core.handlers.asgi import ASGIRequest
from django.http import HttpResponseBase
from django.urls import reverse

from cloudrun_jobs import argv, backends, command_line, enqueue
from cloudrun_jobs.deploy import schedules
from cloudrun_jobs.exceptions import InvalidArguments
from cloudrun_jobs.execution import termination
from cloudrun_jobs.execution.claim import started_by_hand
from cloudrun_jobs.http.audit import audit
from cloudrun_jobs.http.authentication import Caller
from cloudrun_jobs.http.body import read_object, refuse_key
from cloudrun_jobs.http.credentials import TRIGGER
from cloudrun_jobs.http.endpoint import json_response
from cloudrun_jobs.http.errors import HttpError, bad_request, not_found, unavailable, unprocessable
from cloudrun_jobs.http.jobs import existing_job, job_options
from cloudrun_jobs.http.query import parse_time, read_query
from cloudrun_jobs.models import JobRun, Status, Trigger
from cloudrun_jobs.registry import find_jobs
from cloudrun_jobs.runs.dispatch import NOT_SENT
from cloudrun_jobs.runs.requester import requested_by
from cloudrun_jobs.spec.tick import SCHEDULER_JOB_PATTERN, ScheduleTick

if TYPE_CHECKING:
    from django.http import HttpRequest

    from cloudrun_jobs.command import CloudRunJobs

NAME_HEADER, TIME_HEADER = "x-cloudscheduler-jobname", "x-cloudscheduler-scheduletime"


def list_triggers(request: HttpRequest, caller: Caller) -> HttpResponseBase:
    """Return the jobs that run during a request, with their options."""
    read_query(request, {})
    jobs = {name: job for name, job in find_jobs().jobs.items() if caller.may_use(name)}
    found = (_endpoint_data(name, job) for name, job in jobs.items())
    return json_response({"endpoints": [each for each in found if each is not None]})


def _endpoint_data(name: str, job: CloudRunJobs) -> dict[str, Any] | None:
    """Return what callers need to know of the job; None if it has another target, or is invalid."""
    try:
        spec = job.spec
        if spec.target != "service":
            return None
        parser = argv.parser_of(job)
    except Exception:  # noqa: BLE001  (the system checks report it; the parser is the command's own code)
        return None
    actions = {action.dest: action for action in parser._actions}
    return {
        "command": name,
        "url": reverse("cloudrun_jobs:trigger", args=(name,)),
        "help": job.help,
        "options": {option: actions[option].help or "" for option in spec.http_options if option in actions},
        "schedules": [{"cron": each.cron, "time_zone": each.time_zone} for each in spec.schedules],
        "dry_run": "dry_run" in actions,
        "test_mode": hasattr(job, "test_mode"),
    }


def run_job(request: HttpRequest, caller: Caller, name: str) -> HttpResponseBase:
    """Run the command now, and return its result; for a job on a queue, send it, and return the run."""
    read_query(request, {})
    refuse_key(request)
    caller.check(TRIGGER, name)
    job = existing_job(name)
    if job.spec.target != "service":
        raise not_found(f"The job {name[:100]!r} does not have target = 'service'.")
    arguments, test_mode = _arguments(job, read_object(request, any_type=True))
    tick = _tick(request) if caller.is_service else None
    values: dict[str, Any] = {"trigger": Trigger.HTTP}
    if tick is not None:
        values = {"trigger": Trigger.SCHEDULE, "schedule": tick[0], "scheduled_for": tick[1]}
    if backends.for_job(job.spec).submits_triggers:
        return _submit(job, arguments, caller, test_mode=test_mode, **values)
    if isinstance(request, ASGIRequest):
        # ASGI servers install signal handlers when they start to serve. Their event loop is in the main thread.
        async_to_sync(_follow_server)()
    with requested_by(caller.name):
        run, is_duplicate = enqueue.run_in_process(job, arguments, test_mode=test_mode, **values)
    if not is_duplicate:
        audit(caller, "start", run)
    return _response(run, is_duplicate=is_duplicate)


def _submit(
    job: CloudRunJobs, arguments: tuple[str, ...], caller: Caller, *, test_mode: bool, **values: Any
) -> HttpResponseBase:
    """Send a run to the job's queue, unless an earlier delivery of the same tick has."""
    with requested_by(caller.name):
        submit = partial(enqueue.submit_trigger, job, arguments, test_mode=test_mode, **values)
        run, is_duplicate = submit()
        while is_duplicate and run.update_if(started_by_hand(values["scheduled_for"]), scheduled_for=None):
            run, is_duplicate = submit()
    if run.status == Status.FAILED and run.reason == NOT_SENT:
        message = f"Run {run.pk} was not sent ({run.error_class})."
        raise HttpError(HTTPStatus.BAD_GATEWAY, "service_error", message, hint="The log has the reason.")
    if not is_duplicate:
        audit(caller, "start", run)
    extra = {"duplicate": True} if is_duplicate else {}
    url = reverse("cloudrun_jobs:run", args=(run.pk,))
    return json_response({"status": "queued", "job_id": run.pk, **extra}, HTTPStatus.ACCEPTED, Location=url)


async def _follow_server() -> None:
    termination.follow_server()


def _arguments(job: CloudRunJobs, body: dict[str, Any]) -> tuple[tuple[str, ...], bool]:
    """Return the arguments after `manage.py`, and True if the body requests a test run. Raises `HttpError`."""
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
        try:
            arguments = schedules.start_arguments(job, spec, schedule)
        except InvalidArguments:
            continue  # The system checks report it.
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
        due = parse_time(time)
    except ValueError:
        due = None
    if due is None or not re.fullmatch(SCHEDULER_JOB_PATTERN, name):
        raise bad_request("invalid_request", "The X-CloudScheduler headers are invalid.")
    return name, due


def _response(run: JobRun, *, is_duplicate: bool) -> HttpResponseBase:
    """Return the response with the outcome. For Cloud Scheduler, a 2xx means that the work is done."""
    if not run.is_finished and is_duplicate:
        raise unavailable(f"An earlier delivery of this tick is running as run {run.pk}.")
    if not run.is_finished:
        raise unavailable(f"The outcome of run {run.pk} could not be read.")
    extra = {"duplicate": True} if is_duplicate else {}
    url = reverse("cloudrun_jobs:run", args=(run.pk,))
    if run.status == Status.SUCCEEDED:
        return json_response({"status": "success", "result": run.return_value, **extra}, Location=url)
    if run.status == Status.SKIPPED:
        return json_response({"status": "skipped", "result": None, **extra}, Location=url)
    error = run.error_message or run.error_class or f"The run has the status {run.status}."
    if run.reason == "exit_code" and error.isdecimal():
        error = f"The job called sys.exit({error})."
    data = {"status": "error", "error": error, **extra}
    return json_response(data, HTTPStatus.INTERNAL_SERVER_ERROR, Location=url)
