"""The table of the views: what the URLs of `dashboard.paths` do."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import TYPE_CHECKING
from uuid import UUID

from django.core.exceptions import BadRequest
from django.http import Http404

from cloudrun_jobs.dashboard.jobs import actions as job_actions
from cloudrun_jobs.dashboard.jobs import pages as jobs
from cloudrun_jobs.dashboard.runs import actions as run_actions
from cloudrun_jobs.dashboard.runs import pages as runs
from cloudrun_jobs.dashboard.site import Site
from cloudrun_jobs.dashboard.start import pages as start
from cloudrun_jobs.dashboard.view import View
from cloudrun_jobs.http.errors import HttpError
from cloudrun_jobs.http.events import stream_events

if TYPE_CHECKING:
    from django.http import HttpRequest, HttpResponseBase

    from cloudrun_jobs.http.authentication import Caller

GET_POST, POST = ("GET", "POST"), ("POST",)


def follow_run(site: Site, request: HttpRequest, caller: Caller, run_id: UUID) -> HttpResponseBase:
    """Stream the events of a run."""
    try:
        return stream_events(request, caller, str(run_id))
    except HttpError as error:  # For the pages of the site, as from any other view.
        raise (Http404 if error.status == HTTPStatus.NOT_FOUND else BadRequest) from None


VIEWS: Mapping[str, View] = {
    "jobs": View(jobs.show_jobs, "read"),
    "job": View(jobs.show_job, "read"),
    "start": View(start.start, "run", GET_POST),
    "pause": View(job_actions.pause, "run", POST),
    "resume": View(job_actions.resume, "run", POST),
    "release_lock": View(job_actions.release_lock, "run", POST),
    "runs": View(runs.list_runs, "read"),
    "run": View(runs.show_run, "read"),
    "cancel": View(run_actions.cancel, "cancel", POST),
    "rerun": View(run_actions.rerun, "run", POST),
    "text": View(runs.show_text, "read"),
    "events": View(follow_run, "read"),
}
