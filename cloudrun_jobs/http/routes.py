"""The route table of the HTTP API: the actions of each of `PATHS`. The OpenAPI schema is built from it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from django.http import HttpResponseBase

from cloudrun_jobs.http import credentials, events, health, jobs, openapi, query, runs, stats, triggers
from cloudrun_jobs.http.authentication import Caller
from cloudrun_jobs.http.endpoint import json_response
from cloudrun_jobs.http.paths import PATHS
from cloudrun_jobs.http.route import Action, Route

if TYPE_CHECKING:
    from django.http import HttpRequest

RUN = {"name": "The id of a run, or the name of its execution."}


def show_schema(request: HttpRequest, caller: Caller) -> HttpResponseBase:
    """Return the OpenAPI schema, with the jobs that the caller may use."""
    query.read_query(request, {})
    prefix = request.path.removesuffix("/schema/")
    return json_response(openapi.document(tuple(ROUTES.values()), credentials.load(), caller, prefix))


COMMAND = {"name": "The name of a job."}


def _route(name: str, actions: Mapping[str, Action], **options: Any) -> Route:
    return Route(PATHS[name], name, actions, **options)


def _routes() -> Iterator[Route]:
    yield _route("schema", {"GET": Action(show_schema, None, "Show this schema", {200: "Schema"})})
    show_health = Action(
        health.show_health,
        "read",
        "Show the faults that keep jobs from running",
        {200: "Health", 503: "Health"},
        allows_head=True,
        is_open=lambda configured: configured.has_public_health,
    )
    yield _route("health", {"GET": show_health})
    list_runs = Action(
        runs.list_runs, "read", "List runs, newest first", {200: "RunPage"}, query=runs.LIST_PARAMETERS
    )
    yield _route("runs", {"GET": list_runs})
    yield _route(
        "stats", {"GET": Action(stats.show_stats, "read", "Show statistics by job", {200: "StatsByCommand"})}
    )
    show_run = Action(
        runs.show_run, "read", "Show a run", {200: "Run"}, query=runs.SHOW_PARAMETERS, errors=(404, 405)
    )
    start_job = Action(
        jobs.start_job,
        "run",
        "Start a run",
        {202: "Queued"},
        headers=jobs.START_HEADERS,
        errors=(404, 413, 415, 422, 502),
        starts=lambda job: True,
    )
    yield _route("run", {"GET": show_run, "POST": start_job}, parameters=RUN, methods=jobs.run_or_job_methods)
    follow_run = Action(
        events.stream_events, "read", "Stream a run's events", {200: "Events", 204: "Nothing"}, errors=(404, 405)
    )
    yield _route("events", {"GET": follow_run}, parameters=RUN)
    cancel = Action(runs.cancel_run, "cancel", "Cancel a run", {202: "Accepted"}, errors=(404, 409, 413, 422, 502))
    yield _route("cancel", {"POST": cancel}, parameters=RUN)
    rerun = Action(
        runs.rerun,
        "run",
        "Start a new run with the same arguments",
        {202: "Queued"},
        body=runs.RERUN_BODY,
        errors=(404, 409, 413, 422, 502),
    )
    yield _route("rerun", {"POST": rerun}, parameters=RUN)
    list_triggers = Action(
        triggers.list_triggers, "read", "List the jobs that a request can trigger", {200: "Triggers"}
    )
    yield _route("triggers", {"GET": list_triggers})
    run_job = Action(
        triggers.run_job,
        credentials.TRIGGER,
        "Run a job now",
        {200: "Outcome", 202: "Triggered", 500: "Outcome"},
        errors=(404, 413, 422, 502),
        starts=lambda job: job.spec.target == "service",
    )
    yield _route("trigger", {"POST": run_job}, parameters=COMMAND)


ROUTES: Mapping[str, Route] = {route.name: route for route in _routes()}
