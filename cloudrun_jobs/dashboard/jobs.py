"""Show the declared jobs, and one of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloudrun_jobs.dashboard.site import Page, Site

if TYPE_CHECKING:
    from django.http import HttpRequest, HttpResponseBase

    from cloudrun_jobs.http.authentication import Caller


def show_jobs(site: Site, request: HttpRequest, caller: Caller) -> HttpResponseBase:
    """Show every declared job: schedules, next and last run, locks; with `?cloud=1`, drift and pauses."""
    return site.render(request, Page(template="jobs.html", title="Jobs"))


def show_job(site: Site, request: HttpRequest, caller: Caller, command: str) -> HttpResponseBase:
    """Show one job, with its last runs."""
    return site.render(request, Page(template="job.html", title=command, context={"command": command}))
