"""Jobs and runs in the admin: see, start, cancel and rerun them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from uuid import UUID

from django.contrib import admin, messages
from django.contrib.admin.utils import quote
from django.http import HttpResponseBase
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse

from cloudrun_jobs.dashboard.site import Level, Page, Site
from cloudrun_jobs.dashboard.view import View, bind
from cloudrun_jobs.dashboard.views import JOB_VIEWS, RUN_VIEWS
from cloudrun_jobs.http.authentication import Caller, staff_caller
from cloudrun_jobs.models import JobRun
from cloudrun_jobs.models.jobs import Job

if TYPE_CHECKING:
    from django.http import HttpRequest

    ModelAdmin = admin.ModelAdmin[Any]
else:
    ModelAdmin = admin.ModelAdmin  # Not generic at run time.

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

    def urls(self, views: Sequence[View]) -> list[URLPattern]:
        """Return the URLs of these views, for `ModelAdmin.get_urls()`."""
        wrap = self._admin_site.admin_view
        return [path(view.path, wrap(bind(self, view)), name=f"cloudrun_jobs_{view.name}") for view in views]


class ReadOnlyAdmin(ModelAdmin):
    """Rows that the admin shows and does not change."""

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        caller = staff_caller(request.user)
        return caller is not None and "read" in caller.scopes


@admin.register(Job)
class JobAdmin(ReadOnlyAdmin):
    """The declared jobs."""

    def get_urls(self) -> list[Any]:
        return [*AdminPages(self.admin_site).urls(JOB_VIEWS), *super().get_urls()]


@admin.register(JobRun)
class JobRunAdmin(ReadOnlyAdmin):
    """The recorded runs."""

    def get_urls(self) -> list[Any]:
        return [*AdminPages(self.admin_site).urls(RUN_VIEWS[1:]), *super().get_urls()]
