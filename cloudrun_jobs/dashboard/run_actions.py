"""Cancel and rerun runs."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import UUID

from cloudrun_jobs.dashboard.site import Site

if TYPE_CHECKING:
    from django.http import HttpRequest, HttpResponseBase

    from cloudrun_jobs.http.authentication import Caller


def cancel(site: Site, request: HttpRequest, caller: Caller, run_id: UUID) -> HttpResponseBase:
    """Cancel the run, unless it has ended."""
    raise NotImplementedError


def rerun(site: Site, request: HttpRequest, caller: Caller, run_id: UUID) -> HttpResponseBase:
    """Start a new run with the arguments of this one, or of its failed tasks."""
    raise NotImplementedError
