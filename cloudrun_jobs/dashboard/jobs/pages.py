"""Show the declared jobs, and one of them."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from django.http import Http404
from django.utils import timezone
from django.utils.text import capfirst
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from cloudrun_jobs import conf
from cloudrun_jobs.conf import DEFAULT_ALIAS
from cloudrun_jobs.dashboard.jobs.history import MAX_RUNS, draw
from cloudrun_jobs.dashboard.jobs.rows import (
    change_texts,
    declaration_errors,
    holder_rows,
    job_rows,
    schedule_rows,
)
from cloudrun_jobs.dashboard.runs.rows import RunRow, run_row
from cloudrun_jobs.dashboard.site import Link, Page, Site
from cloudrun_jobs.dashboard.text import duration, plain
from cloudrun_jobs.deploy import listing as listings
from cloudrun_jobs.deploy import schedules
from cloudrun_jobs.deploy.listing import Listing
from cloudrun_jobs.deploy.target import cloudrun_backend_or_none, console_url, logs_url
from cloudrun_jobs.exceptions import CloudRunJobsError
from cloudrun_jobs.models import Job, Status
from cloudrun_jobs.models.statistics import percentile
from cloudrun_jobs.registry import find_job
from cloudrun_jobs.runs.data import LISTED
from cloudrun_jobs.spec import JobSpec

if TYPE_CHECKING:
    from django.http import HttpRequest, HttpResponseBase

    from cloudrun_jobs.backends.cloudrun import CloudRunBackend
    from cloudrun_jobs.http.authentication import Caller
    from cloudrun_jobs.models.querysets import JobRunQuerySet

TITLE = gettext_lazy("Jobs")
LAST_RUNS = 10
MAX_HOLDERS, HOLDERS_IN_LIST = 100, 3  # of the locks of one job


@dataclass(frozen=True, slots=True)
class Cloud:
    """Google Cloud, if jobs run there, and when it was compared with the code."""

    backend: CloudRunBackend | None
    error: str = ""  #: Of the settings.
    compared_at: datetime | None = None


def show_jobs(site: Site, request: HttpRequest, caller: Caller) -> HttpResponseBase:
    """Show every declared job: schedules, next and last run, locks; with `?cloud=1`, drift and pauses."""
    recorded = site.runs(request)
    listing, cloud = _read(request, recorded)
    commands = [spec.command for spec in listing.specs]
    named = [*commands, *declaration_errors(listing)]
    holders, lock_error = holder_rows(site, named, recorded, limit=HOLDERS_IN_LIST)
    context = {
        **_cloud_context(listing, cloud),
        "jobs": job_rows(site, listing, holders, may_run="run" in caller.scopes),
        "lock_error": lock_error,
    }
    return site.render(request, Page(template="jobs.html", title=str(TITLE), context=context))


def show_job(site: Site, request: HttpRequest, caller: Caller, command: str) -> HttpResponseBase:
    """Show one job, with its last runs; also one whose command is gone, as long as it has runs."""
    if "\0" in command:  # PostgreSQL rejects it, and no name has it.
        raise Http404
    recorded = site.runs(request)
    listing, cloud = _read(request, recorded, only=command)
    spec, error = next(iter(listing.specs), None), declaration_errors(listing).get(command, "")
    all_runs = recorded.for_command(command)
    own = all_runs.filter(environment=conf.load().environment)
    runs = [run_row(site, run) for run in own.newest_first().only(*LISTED)[:MAX_RUNS]]
    if not (spec or error or runs or all_runs.exists()):
        raise Http404
    holders, lock_error = holder_rows(site, [command], recorded, limit=MAX_HOLDERS)
    may_run = "run" in caller.scopes
    context = {
        **_cloud_context(listing, cloud),
        "command": command,
        "is_declared": spec is not None,
        "error": error,
        "may_run": may_run,
        "start_url": site.url("start", command) if may_run and spec else "",
        "lock_error": lock_error,
        "holders": holders.get(command),
        "release_url": site.url("release_lock", command),
        "runs_url": f"{site.url('runs')}?{urlencode({'job': command})}",
        "runs": runs[:LAST_RUNS],
        "all_runs": runs,
        "history": draw(runs),
        "stats": _stats(runs),
        **(_declaration_context(site, listing, spec, cloud, may_run=may_run) if spec else {}),
    }
    trail = (Link(str(TITLE), site.url("jobs")),)
    job = Job(pk=command, command=command)
    page = Page(template="job.html", title=plain(command), context=context, trail=trail, record=job)
    return site.render(request, page)


def _read(request: HttpRequest, recorded: JobRunQuerySet, *, only: str | None = None) -> tuple[Listing, Cloud]:
    """Return the listing; with `?cloud=1`, with what Google's services know of it."""
    try:
        backend, error = cloudrun_backend_or_none(), ""
    except CloudRunJobsError as invalid:
        backend, error = None, str(invalid)
    is_compared = backend is not None and request.GET.get("cloud") == "1"
    listing = listings.read(backend if is_compared else None, only=only, runs=recorded)
    return listing, Cloud(backend, error, timezone.now() if is_compared else None)


def _cloud_context(listing: Listing, cloud: Cloud) -> dict[str, Any]:
    drift = listing.drift
    return {
        "has_cloud": cloud.backend is not None,
        "compared_at": cloud.compared_at,
        # Such as of each job, about the same permission.
        "cloud_errors": [*dict.fromkeys(filter(None, [cloud.error, *map(str, listing.drift_errors)]))],
        "orphans": drift.orphans if drift else (),
        "time_zone": timezone.get_current_timezone_name(),
    }


def _declaration_context(
    site: Site, listing: Listing, spec: JobSpec, cloud: Cloud, *, may_run: bool
) -> dict[str, Any]:
    """Return what the page shows of a job that is declared."""
    rows, job = schedule_rows(listing, spec), find_job(spec.command)
    states = {row.is_paused for row in rows}
    can_pause = may_run and bool(rows) and _starts_schedules(cloud, spec)
    return {
        "help": job.help if job else "",
        "facts": [*_facts(spec)],
        "schedules": rows,
        "changes": change_texts(listing, spec.command),
        "problems": listing.drift.troubles.get(spec.command, ()) if listing.drift else (),
        "pause_url": site.url("pause", spec.command) if can_pause and states != {True} else "",
        "resume_url": site.url("resume", spec.command) if can_pause and states != {False} else "",
        "console_url": console_url(spec) if cloud.backend else "",
        "logs_url": logs_url(spec) if cloud.backend else "",
    }


def _starts_schedules(cloud: Cloud, spec: JobSpec) -> bool:
    return cloud.backend is not None and schedules.is_deployed(spec, cloud.backend)


def _facts(spec: JobSpec) -> Iterator[tuple[str, str]]:
    """Yield the declaration of the job, each part with its name."""
    yield _("Cloud Run job"), spec.name
    yield _("Backend"), spec.backend_alias or DEFAULT_ALIAS
    yield _("Target"), _("Web service") if spec.target == "service" else _("Cloud Run job")
    yield _("Command line"), shlex.join([*spec.entrypoint, spec.command])
    if spec.image:
        yield capfirst(_("image")), spec.image
    yield _("Tasks"), str(spec.tasks)
    yield _("Timeout per attempt"), duration(spec.timeout)
    yield _("Retries of a task"), str(spec.max_retries)
    parallelism = _("Unlimited") if spec.parallelism is None else str(spec.parallelism)
    yield _("Executions at once"), parallelism


def _stats(rows: Sequence[RunRow]) -> dict[str, Any]:
    """Return the statistics of these runs."""
    durations = sorted(row.took for row in rows if row.run.is_finished and row.took is not None)
    counts = Counter(row.run.status for row in rows)
    succeeded = counts[Status.SUCCEEDED]
    ended = succeeded + counts[Status.FAILED] + counts[Status.LOST]
    return {
        "p50": percentile(durations, 50),
        "p95": percentile(durations, 95),
        "succeeded": succeeded,
        "ended": ended,
        "rate": round(100 * succeeded / ended) if ended else None,
    }
