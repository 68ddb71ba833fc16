"""List the runs, and show one of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

from django.http import Http404, HttpResponse
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from cloudrun_jobs import conf
from cloudrun_jobs.dashboard.runs import excerpts, search
from cloudrun_jobs.dashboard.runs.details import RunDetails, read_run
from cloudrun_jobs.dashboard.site import Link, Page, Site
from cloudrun_jobs.dashboard.text import LINES, MAX_LENGTH, plain
from cloudrun_jobs.deploy.target import execution_url
from cloudrun_jobs.terminal import escape

if TYPE_CHECKING:
    from django.http import HttpRequest, HttpResponseBase

    from cloudrun_jobs.http.authentication import Caller

TITLE = gettext_lazy("Runs")
ID_DIGITS = 8  # that identify a run for a reader
MAX_PAGE_DIGITS = 4  # of tasks


def list_runs(site: Site, request: HttpRequest, caller: Caller) -> HttpResponseBase:
    """List the runs, newest first. In the admin, its own list replaces this one."""
    context = {**search.read(site, request), "time_zone": timezone.get_current_timezone_name()}
    return site.render(request, Page(template="runs.html", title=str(TITLE), context=context))


def show_run(site: Site, request: HttpRequest, caller: Caller, run_id: UUID) -> HttpResponseBase:
    """Show one run."""
    run = read_run(run_id)
    if run is None:
        raise Http404(_("There is no record of this run. It may have been deleted."))
    details = RunDetails(site, run, page=_page_number(request))
    page = Page(
        template="run.html",
        title=f"{plain(run.command)} {str(run.pk)[:ID_DIGITS]}",
        trail=[Link(str(TITLE), site.url("runs"))],
        record=run,
        context={**_context(details), **_links(site, details), **_actions(site, request, details, caller)},
    )
    return site.render(request, page)


def _page_number(request: HttpRequest) -> int:
    text = request.GET.get("tasks", "")
    number = int(text) if text.isascii() and text.isdigit() and len(text) <= MAX_PAGE_DIGITS else 1
    return max(number, 1)


def _context(details: RunDetails) -> dict[str, Any]:
    run = details.run
    return {
        "run": run,
        "took": details.took,
        "counts": [*details.counts()],
        "progress": details.progress,
        "tasks": details.tasks,
        "items": details.items,
        "arguments": details.arguments,
        "texts": {name: details.excerpt(name) for name in (*excerpts.TEXTS, *excerpts.VALUES)},
        "time_zone": timezone.get_current_timezone_name(),
        "other_environment": run.environment if run.environment != conf.load().environment else "",
    }


def _links(site: Site, details: RunDetails) -> dict[str, Any]:
    run, log_uri = details.run, vars(details.run)["logs_start"]
    is_link = log_uri.startswith(("https://", "http://")) and len(log_uri) <= MAX_LENGTH
    return {
        "job_url": site.url("job", run.command),
        "has_job": details.job is not None,
        "console_url": execution_url(run),
        # The text of a service: no other scheme is a link, and what was cut would lead elsewhere.
        "log_url": log_uri if is_link else "",
        "rerun_of_url": site.url("run", run.rerun_of_id) if run.rerun_of_id else "",
        "reruns": [(site.url("run", each.pk), each) for each in details.reruns],
        "events_url": "" if run.is_finished else site.url("events", run.pk),
    }


def _actions(site: Site, request: HttpRequest, details: RunDetails, caller: Caller) -> dict[str, Any]:
    run, may_run = details.run, "run" in caller.scopes
    may_rerun = may_run and details.can_rerun
    # `?again=1` follows a request that failed.
    is_cancellable = not run.is_finished and (not run.cancel_requested_at or request.GET.get("again") == "1")
    return {
        "cancel_url": site.url("cancel", run.pk) if "cancel" in caller.scopes and is_cancellable else "",
        "rerun_url": site.url("rerun", run.pk) if may_rerun else "",
        "may_rerun_failed": may_rerun and details.can_rerun_failed,
        "key": uuid4(),
        "failed_key": uuid4(),
    }


def show_text(site: Site, request: HttpRequest, caller: Caller, run_id: UUID, field: str) -> HttpResponseBase:
    """Return the whole text of one field of a run, or of one of its tasks."""
    text = excerpts.whole_text(run_id, field)
    if text is None:
        raise Http404(_("There is no such text. The run may have been deleted."))
    escaped = escape(text.replace("\r\n", "\n"), keep=LINES)
    response = HttpResponse(escaped, content_type="text/plain; charset=utf-8")
    response["X-Content-Type-Options"] = "nosniff"
    response["Content-Disposition"] = f'inline; filename="{field}.txt"'
    return response
