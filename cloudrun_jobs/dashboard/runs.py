"""List the runs, and show one of them."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import UUID

from cloudrun_jobs.dashboard.site import Page, Site

if TYPE_CHECKING:
    from django.http import HttpRequest, HttpResponseBase

    from cloudrun_jobs.http.authentication import Caller


def list_runs(site: Site, request: HttpRequest, caller: Caller) -> HttpResponseBase:
    """List the runs, newest first. In the admin, its own list replaces this one."""
    return site.render(request, Page(template="runs.html", title="Runs"))


def show_run(site: Site, request: HttpRequest, caller: Caller, run_id: UUID) -> HttpResponseBase:
    """Show one run."""
    return site.render(request, Page(template="run.html", title=str(run_id), context={"run_id": run_id}))


def show_text(site: Site, request: HttpRequest, caller: Caller, run_id: UUID, field: str) -> HttpResponseBase:
    """Return the whole text of one field of a run."""
    raise NotImplementedError
