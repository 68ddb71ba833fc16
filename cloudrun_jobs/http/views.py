"""Views for URLs of your own, with the credentials, errors and formats of the HTTP API.

    urlpatterns = [
        path("ingest/run-daily", endpoint(POST=start_run("run_daily_ingest"))),
        path("ingest/jobs", endpoint(GET=list_runs("run_daily_ingest"))),
        path("ingest/jobs/stats", endpoint(GET=show_stats("run_daily_ingest"))),
        path("ingest/jobs/<str:job_id>", endpoint(GET=show_run("run_daily_ingest"))),
        path("job/<int:id>", endpoint(POST=start_run("job"), GET=show_newest_run("job"))),
    ]

As for the API's own URLs, a credential needs the action's scope and may be limited to certain commands.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from django.http import HttpResponseBase

from cloudrun_jobs.http.route import Action, Route, view_of

if TYPE_CHECKING:
    from django.http import HttpRequest

    from cloudrun_jobs.http.authentication import Caller

__all__ = ["endpoint", "list_runs", "show_newest_run", "show_run", "show_stats", "start_run"]


def endpoint(**actions: Action) -> Callable[..., HttpResponseBase]:
    """Return the view of a URL, given its actions by method: `endpoint(POST=start_run("echo"))`."""
    route = Route("", "", actions)
    return view_of(lambda: route)


def start_run(command: str) -> Action:
    """Start a run with the options in the body, limited to `http_options`, and the arguments of the URL.

    The response is 202 with `{"job_id": …, "status": "queued"}`. Scope: `run`.
    """
    return Action(partial(_start, command), "run")


def list_runs(command: str) -> Action:
    """Return a page of the command's runs, as `GET jobs/` does. Scope: `read`."""
    return Action(partial(_list, command), "read")


def show_run(command: str) -> Action:
    """Return the run that the URL's one argument names, as `GET jobs/<run>/` does. Scope: `read`."""
    return Action(partial(_show, command), "read")


def show_newest_run(command: str) -> Action:
    """Return the command's newest run with the arguments of the URL as options. Scope: `read`.

    An option in `secret_options` is refused.
    """
    return Action(partial(_show_newest, command), "read")


def show_stats(command: str) -> Action:
    """Return the statistics of the command, an entry of `GET jobs/stats/`. Scope: `read`."""
    return Action(partial(_show_stats, command), "read")


def _start(command: str, request: HttpRequest, caller: Caller, **options: Any) -> HttpResponseBase:
    from cloudrun_jobs.http import jobs
    from cloudrun_jobs.http.endpoint import json_response

    run = jobs.enqueue_job(request, caller, command, options)
    return json_response({"job_id": run.pk, "status": "queued"}, HTTPStatus.ACCEPTED)


def _list(command: str, request: HttpRequest, caller: Caller) -> HttpResponseBase:
    from cloudrun_jobs.http import runs

    return runs.list_runs(request, caller, command=command)


def _show(command: str, request: HttpRequest, caller: Caller, **names: Any) -> HttpResponseBase:
    from cloudrun_jobs.http import runs

    (name,) = names.values()
    return runs.show_run(request, caller, str(name), command=command)


def _show_stats(command: str, request: HttpRequest, caller: Caller) -> HttpResponseBase:
    from cloudrun_jobs.http import stats

    return stats.show_stats_of(request, caller, command)


def _show_newest(command: str, request: HttpRequest, caller: Caller, **options: Any) -> HttpResponseBase:
    from cloudrun_jobs import argv
    from cloudrun_jobs.exceptions import InvalidArguments
    from cloudrun_jobs.http import jobs, runs
    from cloudrun_jobs.http.errors import not_found

    job = jobs.existing_job(command)
    jobs.refuse_secret_options(job, options)
    try:
        arguments = argv.serialise(argv.parser_of(job), (), options)
    except InvalidArguments:
        raise not_found("The command does not take these options.") from None
    return runs.show_newest_run(request, caller, command, arguments)
