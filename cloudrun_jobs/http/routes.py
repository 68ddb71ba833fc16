"""The table of the HTTP API. The URLs and the OpenAPI schema are built from it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from django.http import HttpResponseBase

from cloudrun_jobs.http import credentials, health, jobs, openapi, query, runs, stats
from cloudrun_jobs.http.authentication import Caller
from cloudrun_jobs.http.endpoint import Action, Route, json_response

if TYPE_CHECKING:
    from django.http import HttpRequest

RUN = {"name": "The id of a run, or the name of its execution."}


def show_schema(request: HttpRequest, caller: Caller) -> HttpResponseBase:
    """Return the OpenAPI schema, with the jobs that the caller may use."""
    query.read_query(request, {})
    prefix = request.path.removesuffix("/schema/") or "/"
    return json_response(openapi.document(ROUTES, credentials.load(), caller, prefix))


# The first match wins: fixed words stand before the names of commands.
ROUTES: Sequence[Route] = (
    Route("schema/", "schema", {"GET": Action(show_schema, None, "Show this schema", {200: "Schema"})}),
    Route(
        "health/",
        "health",
        {
            "GET": Action(
                health.show_health,
                "read",
                "Show whether schedules, runs, locks and database are as they should be",
                {200: "Health", 503: "Health"},
                answers_head=True,
                is_open=lambda configured: configured.has_public_health,
            )
        },
    ),
    Route(
        "jobs/",
        "runs",
        {
            "GET": Action(
                runs.list_runs, "read", "List runs, newest first", {200: "RunPage"}, query=runs.LIST_PARAMETERS
            )
        },
    ),
    Route(
        "jobs/stats/",
        "stats",
        {"GET": Action(stats.show_stats, "read", "Show statistics by job", {200: "StatsByCommand"})},
    ),
    Route(
        "jobs/<str:name>/",
        "run",
        {
            "GET": Action(
                runs.show_run,
                "read",
                "Show a run",
                {200: "Run"},
                query=runs.SHOW_PARAMETERS,
                errors=(404, 405),
            ),
            "POST": Action(
                jobs.start_job,
                "run",
                "Start a run",
                {202: "Queued"},
                headers=jobs.START_HEADERS,
                errors=(404, 413, 415, 422, 502),
                starts_command=True,
            ),
        },
        parameters=RUN,
        methods=jobs.run_or_job_methods,
    ),
    Route(
        "jobs/<str:name>/cancel/",
        "cancel",
        {
            "POST": Action(
                runs.cancel_run,
                "cancel",
                "Cancel a run",
                {202: "Accepted"},
                errors=(404, 409, 502),
            )
        },
        parameters=RUN,
    ),
    Route(
        "jobs/<str:name>/rerun/",
        "rerun",
        {
            "POST": Action(
                runs.rerun,
                "run",
                "Start a new run with the arguments of a run",
                {202: "Queued"},
                errors=(404, 422, 502),
            )
        },
        parameters=RUN,
    ),
)


def reserved_words() -> frozenset[str]:
    """Return the fixed words below `jobs/` and `run/`, which win over the names of commands there."""
    paths = [route.path.strip("/").split("/") for route in ROUTES]
    words = {part for first, *rest in paths if first in {"jobs", "run"} for part in rest}
    return frozenset(word for word in words if not word.startswith("<"))
