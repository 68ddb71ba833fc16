"""The dashboard: the pages on their own, for the session of a member of staff."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import UUID

from django.shortcuts import render
from django.urls import reverse

from cloudrun_jobs.dashboard.site import Level, Page, Site
from cloudrun_jobs.http.authentication import Caller, staff_caller

if TYPE_CHECKING:
    from django.http import HttpRequest, HttpResponseBase


class OwnSite(Site):
    """The pages below `dashboard/` of `cloudrun_jobs.urls`."""

    def url(self, name: str, *arguments: str | UUID) -> str:
        return reverse(f"cloudrun_jobs:dashboard_{name}", args=arguments)

    def caller(self, request: HttpRequest) -> Caller | None:
        return staff_caller(request.user)

    def render(self, request: HttpRequest, page: Page) -> HttpResponseBase:
        context = {**page.context, "page": page, "site": self}
        return render(request, "cloudrun_jobs/dashboard/page.html", context, status=page.status)

    def notify(self, request: HttpRequest, level: Level, message: str) -> None:
        request.session.setdefault("cloudrun_jobs_notices", []).append([level, message])
