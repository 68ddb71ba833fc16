"""Pause and resume the schedules of a job, and release its locks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloudrun_jobs.dashboard.site import Site

if TYPE_CHECKING:
    from django.http import HttpRequest, HttpResponseBase

    from cloudrun_jobs.http.authentication import Caller


def pause(site: Site, request: HttpRequest, caller: Caller, command: str) -> HttpResponseBase:
    """Pause the schedules of the job."""
    raise NotImplementedError


def resume(site: Site, request: HttpRequest, caller: Caller, command: str) -> HttpResponseBase:
    """Resume the schedules of the job."""
    raise NotImplementedError


def release_lock(site: Site, request: HttpRequest, caller: Caller, command: str) -> HttpResponseBase:
    """Release a lock of the job, unless its holder has changed since the page was shown."""
    raise NotImplementedError
