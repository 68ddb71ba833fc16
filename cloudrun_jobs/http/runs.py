"""List, show, cancel and rerun runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from http import HTTPStatus
from typing import TYPE_CHECKING
from uuid import UUID

from django.http import HttpResponseBase
from django.urls import reverse

from cloudrun_jobs.backoff import attempts
from cloudrun_jobs.exceptions import (
    CloudRunJobsError,
    IdempotencyKeyReused,
    InvalidArguments,
    JobNotDeployed,
    QuotaExhausted,
    RerunRefused,
    ServiceError,
    ServiceUnavailable,
)
from cloudrun_jobs.http import actions, query
from cloudrun_jobs.http.authentication import Caller
from cloudrun_jobs.http.body import read_flag, refuse_body
from cloudrun_jobs.http.cursor import Cursor, read_page
from cloudrun_jobs.http.endpoint import json_response
from cloudrun_jobs.http.errors import HttpError, method_not_allowed, not_found, unprocessable
from cloudrun_jobs.http.query import Parameter
from cloudrun_jobs.models import JobRun, Status, Trigger
from cloudrun_jobs.models.querysets import LONG_FIELDS
from cloudrun_jobs.models.runs import short_name
from cloudrun_jobs.operations import Operation
from cloudrun_jobs.registry import find_job
from cloudrun_jobs.runs.data import LISTED, listed_data, run_data
from cloudrun_jobs.runs.reruns import is_command_line

if TYPE_CHECKING:
    from django.http import HttpRequest

MAX_WAIT = 60.0  # seconds
WAIT_POLL_INTERVAL = 1.0  # seconds, at most


def list_runs(request: HttpRequest, caller: Caller, command: str = "") -> HttpResponseBase:
    """Return a page of runs, newest first; with `command`, only runs of that command."""
    allowed = {name: read for name, read in LIST_PARAMETERS.items() if not (command and name == "command")}
    given = query.read_query(request, allowed)
    runs = JobRun.objects.only(*LISTED)
    if command := given.pop("command", command):
        caller.check("read", command)
        runs = runs.for_command(command)
    elif caller.commands is not None:
        runs = runs.filter(command__in=caller.commands)
    cursor = given.pop("cursor", None)
    page, following = read_page(runs, given, cursor)
    return json_response({"runs": [listed_data(run) for run in page], "next": following})


def show_run(request: HttpRequest, caller: Caller, name: str, command: str = "") -> HttpResponseBase:
    """Return one run; with `wait`, once it has ended or that many seconds have passed."""
    wait = query.read_query(request, SHOW_PARAMETERS).get("wait", 0.0)
    try:
        run = find_run(caller, "read", name, command)
    except HttpError as error:
        if error.status == HTTPStatus.NOT_FOUND and not command and caller.may_use(name) and find_job(name):
            hint = f"List its runs: GET jobs/?command={name}."
            raise method_not_allowed("GET", ("POST",), hint=hint) from None
        raise
    if wait and not run.is_finished:
        for _ in attempts(wait, initial=0.1, maximum=WAIT_POLL_INTERVAL):
            run.refresh_from_db()
            if run.is_finished:
                break
    return json_response(run_data(run))


def show_newest_run(
    request: HttpRequest, caller: Caller, command: str, arguments: Sequence[str]
) -> HttpResponseBase:
    """Return the newest run of the command with these arguments."""
    query.read_query(request, {})
    caller.check("read", command)
    run = JobRun.objects.for_command(command).with_arguments(arguments).newest_first().first()
    if run is None:
        raise not_found("No run with these options is recorded.")
    return json_response(run_data(run))


def cancel_run(request: HttpRequest, caller: Caller, name: str) -> HttpResponseBase:
    """Cancel a run, unless it has ended."""
    query.read_query(request, {})
    refuse_body(request)
    run = find_run(caller, "cancel", name)
    if run.is_finished:
        raise _ended(run)
    try:
        is_cancelled = actions.cancel(caller, run, over_http=True)
    except ServiceError as error:
        raise _service_error(error) from None
    if not is_cancelled:
        raise _ended(run)
    url = reverse("cloudrun_jobs:run", args=(run.pk,))
    return json_response({"job_id": run.pk, "status": run.status, "url": url}, HTTPStatus.ACCEPTED, Location=url)


def _ended(run: JobRun) -> HttpError:
    return HttpError(HTTPStatus.CONFLICT, "ended", "The run has ended.", fields={"status": run.status})


def rerun(request: HttpRequest, caller: Caller, name: str) -> HttpResponseBase:
    """Start a new run with the arguments of this one; with `failed_only`, of its failed tasks and items."""
    query.read_query(request, {})
    failed_only = read_flag(request, "failed_only")
    run = find_run(caller, "run", name)
    if not is_command_line(run.argv):
        raise unprocessable("The arguments of this run were not recorded.", hint="Start a run of the command.")
    job = find_job(run.command)
    if job is None:
        raise unprocessable(f"The command {run.command!r} no longer exists, or is no longer a job.")

    try:
        with _refusals():
            started, _ = actions.rerun(caller, run, job, failed_only=failed_only, over_http=True)
    except RerunRefused as error:
        raise HttpError(HTTPStatus.CONFLICT, "rerun_refused", error.args[0], hint=error.hint) from None
    return queued(started)


#: The schema of the body of `rerun()`.
RERUN_BODY = {
    "type": "object",
    "properties": {"failed_only": {"type": "boolean", "default": False}},
    "additionalProperties": False,
}


def start(caller: Caller, enqueue_run: Callable[..., tuple[Operation, JobRun, bool]]) -> JobRun:
    """Enqueue a run for the caller, and return it. Raises `HttpError`."""
    with _refusals():
        run, _ = actions.start(caller, enqueue_run, over_http=True)
    return run


@contextmanager
def _refusals() -> Iterator[None]:
    """Raise `HttpError` for a request that cannot be enqueued."""
    try:
        yield
    except IdempotencyKeyReused:
        raise unprocessable("The Idempotency-Key was used with another body.") from None
    except InvalidArguments as error:
        raise unprocessable(error.args[0], hint=error.hint) from None
    except ServiceError as error:
        raise _service_error(error, hint="The record of the run has the reason; so has the log.") from None


def queued(run: JobRun) -> HttpResponseBase:
    """Return the response for a queued run, with the URL that shows it."""
    url = reverse("cloudrun_jobs:run", args=(run.pk,))
    data = {"job_id": run.pk, "status": "queued", "url": url}
    return json_response(data, HTTPStatus.ACCEPTED, Location=url)


def _service_error(error: CloudRunJobsError, *, hint: str = "The log has the reason.") -> HttpError:
    """Return the refusal for an error of Google's services. Its text names resources, so it is not repeated."""
    if isinstance(error, JobNotDeployed):
        hint = "Run `manage.py sync_cloudrun_jobs`: Cloud Run has no such job."
    passes = isinstance(error, ServiceUnavailable | QuotaExhausted)
    status = HTTPStatus.SERVICE_UNAVAILABLE if passes else HTTPStatus.BAD_GATEWAY
    message = f"The request to Cloud Run failed ({type(error).__name__})."
    return HttpError(status, "service_error", message, hint=hint)


def find_run(caller: Caller, scope: str, name: str, command: str = "") -> JobRun:
    """Return the run of that id or execution name; with `command`, only one of that job. Raises `HttpError`.

    Its long fields are loaded only for a reader.
    """
    try:
        runs = JobRun.objects.filter(pk=UUID(name))
    except ValueError:
        runs = JobRun.objects.filter(execution=short_name(name))
    if scope != "read":
        runs = runs.defer(*LONG_FIELDS)
    # PostgreSQL rejects NUL, which no name has.
    run = None if "\0" in name else (runs.filter(command=command) if command else runs).first()
    if run is None:
        raise not_found(f"No run {name[:100]!r} is recorded.")
    caller.check(scope, run.command)
    return run


LIST_PARAMETERS: Mapping[str, Parameter] = {
    "command": query.text("Runs of this command."),
    "status": query.one_of(Status, "Runs with this status."),
    "reason": query.text("Runs whose status has this reason."),
    "trigger": query.one_of(Trigger, "Runs with this trigger."),
    "since": query.time("Runs created at this time or later."),
    "until": query.time("Runs created before this time."),
    "cursor": Parameter(
        Cursor.decode, {"type": "string"}, "The value of `next` in the previous page.", "invalid_cursor"
    ),
}

SHOW_PARAMETERS: Mapping[str, Parameter] = {
    "wait": query.seconds(MAX_WAIT, "Respond once the run has ended, or after this many seconds."),
}
