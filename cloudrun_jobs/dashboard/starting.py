"""Start a run of a job with the options of a form."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloudrun_jobs.dashboard.site import Page, Site

if TYPE_CHECKING:
    from django.http import HttpRequest, HttpResponseBase

    from cloudrun_jobs.http.authentication import Caller


def start(site: Site, request: HttpRequest, caller: Caller, command: str) -> HttpResponseBase:
    """Show the form of the job's options; start a run when it is posted."""
    return site.render(request, Page(template="start.html", title=command, context={"command": command}))
