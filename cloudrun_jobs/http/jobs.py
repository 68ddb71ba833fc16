"""Start runs of jobs, with the options that callers may set."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from django.http import HttpResponseBase

from cloudrun_jobs import argv, enqueue
from cloudrun_jobs.http.actions import own_key
from cloudrun_jobs.http.authentication import Caller
from cloudrun_jobs.http.body import read_object
from cloudrun_jobs.http.errors import bad_request, method_not_allowed, not_found, unprocessable
from cloudrun_jobs.http.options import read_option
from cloudrun_jobs.http.query import Parameter, read_query
from cloudrun_jobs.http.runs import queued, start
from cloudrun_jobs.models import JobRun
from cloudrun_jobs.models.runs import is_run_id
from cloudrun_jobs.registry import find_job

if TYPE_CHECKING:
    from django.http import HttpRequest

    from cloudrun_jobs.command import CloudRunJobs

OWN_KEY_LENGTH = 100  # characters; the rest of the stored key identifies the caller


def _read_key(key: str) -> str:
    if not 1 <= len(key) <= OWN_KEY_LENGTH or not key.isascii() or not key.isprintable():
        raise ValueError(f"expected 1 to {OWN_KEY_LENGTH} printable ASCII characters")
    return key


START_HEADERS = {
    "Idempotency-Key": Parameter(
        _read_key,
        # Servers drop spaces at both ends.
        {"type": "string", "maxLength": OWN_KEY_LENGTH, "pattern": "^[!-~]([ -~]*[!-~])?$"},
        "The same key returns the same run; with another body, the response is 422.",
    )
}


def start_job(request: HttpRequest, caller: Caller, name: str) -> HttpResponseBase:
    """Enqueue a run of the command with the options in the body."""
    return queued(enqueue_job(request, caller, name, {}))


def enqueue_job(request: HttpRequest, caller: Caller, name: str, options: Mapping[str, Any]) -> JobRun:
    """Enqueue a run of the command with these options, and those in the body."""
    caller.check("run")
    if is_run_id(name):
        existing_job(name)  # Of a run, the URL is right, and the method is not.
    caller.check("run", name)
    job = existing_job(name)
    read_query(request, {})
    refuse_secret_options(job, options)
    parser = argv.parser_of(job)
    given = job_options(job, read_object(request), parser)
    if repeated := given.keys() & options.keys():
        fields = dict.fromkeys(sorted(repeated), "The URL sets this option.")
        raise unprocessable("The body has options that the URL sets.", fields=fields)
    options = {**options, **given}
    enqueue_run = partial(enqueue.request_run, job, (), options, key=_key(request, caller), parser=parser)
    return start(caller, enqueue_run)


def refuse_secret_options(job: CloudRunJobs, options: Mapping[str, Any]) -> None:
    """Raise `HttpError` if the URL sets a secret option: callers could name any secret of the job's account."""
    if secret := sorted(options.keys() & {*job.spec.secret_options}):
        fields = dict.fromkeys(secret, "Callers may not set this option.")
        raise unprocessable("The URL sets a secret option.", fields=fields)


def existing_job(name: str) -> CloudRunJobs:
    """Return a new instance of the job. Raises `HttpError`."""
    job = find_job(name)
    if job is None and is_run_id(name):
        raise method_not_allowed("POST", ("GET",))
    if job is None:
        raise not_found(f"There is no job {name[:100]!r}.")
    return job


def run_or_job_methods(name: str) -> tuple[str, ...]:
    """Return the methods of `jobs/<name>/`: POST for a job, GET for a run."""
    return ("POST",) if find_job(name) else ("GET",)


def job_options(job: CloudRunJobs, body: dict[str, Any], parser: ArgumentParser | None = None) -> dict[str, Any]:
    """Return the body as options of the job. Raises `HttpError` for those that callers may not set."""
    actions = {action.dest: action for action in (parser or argv.parser_of(job))._actions}
    allowed = [name for name in job.spec.http_options if name in actions]
    if unknown := sorted(body.keys() - set(allowed)):
        expected = f"expected {', '.join(allowed)}" if allowed else "the job takes none from callers"
        fields = dict.fromkeys(unknown, f"Callers may not set this option; {expected}.")
        raise unprocessable("The body has options that callers may not set.", fields=fields)
    values: dict[str, Any] = {}
    problems: dict[str, str] = {}
    for name, value in body.items():
        try:
            values[name] = read_option(actions[name], value)
        except ValueError as error:
            problems[name] = f"{error}."
    if problems:
        raise unprocessable("The body has invalid options.", fields=problems)
    return values


def _key(request: HttpRequest, caller: Caller) -> str | None:
    """Return the idempotency key of the request, which is the caller's own."""
    key = request.headers.get("idempotency-key")
    if key is None:
        return None
    try:
        _read_key(key)
    except ValueError as error:
        raise bad_request("invalid_request", f"Idempotency-Key: {error}.") from None
    return own_key(caller, key)
