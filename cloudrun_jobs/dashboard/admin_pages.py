"""The pages in an admin site."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import UUID

from django.contrib import admin, messages
from django.contrib.admin.utils import quote
from django.http import HttpResponseBase
from django.template.response import TemplateResponse
from django.urls import reverse

from cloudrun_jobs.dashboard.site import Level, Page, Site
from cloudrun_jobs.http.authentication import Caller, staff_caller

if TYPE_CHECKING:
    from django.http import HttpRequest

MESSAGE_LEVELS = {Level.SUCCESS: messages.SUCCESS, Level.WARNING: messages.WARNING, Level.ERROR: messages.ERROR}
#: Views that have the names of the admin's own.
OWN_NAMES = {"jobs": "job_changelist", "job": "job_change", "runs": "jobrun_changelist", "run": "jobrun_change"}


class AdminPages(Site):
    """The pages in an admin site."""

    def __init__(self, admin_site: admin.AdminSite) -> None:
        self._admin_site = admin_site

    def url(self, name: str, *arguments: str | UUID) -> str:
        view = f"{self._admin_site.name}:cloudrun_jobs_{OWN_NAMES.get(name, name)}"
        return reverse(view, args=[quote(argument) for argument in arguments])

    def caller(self, request: HttpRequest) -> Caller | None:
        return staff_caller(request.user)

    def render(self, request: HttpRequest, page: Page) -> HttpResponseBase:
        context = {**self._admin_site.each_context(request), **page.context, "page": page, "site": self}
        context["title"] = page.title
        return TemplateResponse(request, "admin/cloudrun_jobs/page.html", context, status=page.status)

    def notify(self, request: HttpRequest, level: Level, message: str) -> None:
        messages.add_message(request, MESSAGE_LEVELS[level], message)
