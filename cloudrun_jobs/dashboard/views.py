"""The table of the views: what an admin site and the dashboard show, and where."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import UUID

from cloudrun_jobs.dashboard import job_actions, jobs, run_actions, runs, starting
from cloudrun_jobs.dashboard.site import Site
from cloudrun_jobs.dashboard.view import View
from cloudrun_jobs.http.events import stream_events

if TYPE_CHECKING:
    from django.http import HttpRequest, HttpResponseBase

    from cloudrun_jobs.http.authentication import Caller

GET_POST, POST = ("GET", "POST"), ("POST",)


def follow_run(site: Site, request: HttpRequest, caller: Caller, run_id: UUID) -> HttpResponseBase:
    """Stream the events of a run."""
    return stream_events(request, caller, str(run_id))


#: The first of each is the site's own list, which an admin site replaces.
JOB_VIEWS = (
    View("jobs", "", jobs.show_jobs, "read"),
    View("job", "<str:command>/", jobs.show_job, "read"),
    View("start", "<str:command>/start/", starting.start, "run", GET_POST),
    View("pause", "<str:command>/pause/", job_actions.pause, "run", POST),
    View("resume", "<str:command>/resume/", job_actions.resume, "run", POST),
    View("release_lock", "<str:command>/release-lock/", job_actions.release_lock, "run", POST),
)
RUN_VIEWS = (
    View("runs", "", runs.list_runs, "read"),
    View("run", "<uuid:run_id>/", runs.show_run, "read"),
    View("cancel", "<uuid:run_id>/cancel/", run_actions.cancel, "cancel", POST),
    View("rerun", "<uuid:run_id>/rerun/", run_actions.rerun, "run", POST),
    View("text", "<uuid:run_id>/text/<str:field>/", runs.show_text, "read"),
    View("events", "<uuid:run_id>/events/", follow_run, "read"),
)
