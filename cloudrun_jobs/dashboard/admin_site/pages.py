"""The pages in an admin site."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any
from uuid import UUID

from django import VERSION
from django.contrib import messages
from django.contrib.admin.utils import quote
from django.http import HttpResponse
from django.template.loader import render_to_string
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.translation import gettext

from cloudrun_jobs.dashboard.paths import ADMIN_VIEW_NAMES
from cloudrun_jobs.dashboard.site import LIVE_HEADER, Level, Link, Page, Site
from cloudrun_jobs.http.authentication import Caller
from cloudrun_jobs.models import Job, JobRun

if TYPE_CHECKING:
    from django.http import HttpRequest

    from cloudrun_jobs.models.querysets import JobRunQuerySet

MESSAGE_LEVELS = {Level.SUCCESS: messages.SUCCESS, Level.WARNING: messages.WARNING, Level.ERROR: messages.ERROR}


class AdminPages(Site):
    """The pages in an admin site, for the `ModelAdmin` of jobs or of runs, with its permissions."""

    def __init__(self, model_admin: Any, run: JobRun | None = None) -> None:
        self._admin, self._run = model_admin, run

    def url(self, name: str, *arguments: str | UUID) -> str:
        view = f"{self._admin.admin_site.name}:cloudrun_jobs_{ADMIN_VIEW_NAMES.get(name, name)}"
        return reverse(view, args=[quote(argument) for argument in arguments])

    def caller(self, request: HttpRequest) -> Caller | None:
        # A site may admit other users than members of staff.
        if not self._admin.admin_site.has_permission(request):
            return None
        allowed = {
            "read": self._admin.has_view_permission(request, self._run),
            "run": self._admin.has_run_permission(request, self._run),
            "cancel": self._admin.has_cancel_permission(request, self._run),
        }
        scopes = frozenset(scope for scope, is_allowed in allowed.items() if is_allowed)
        return Caller(request.user.get_username(), scopes, user=request.user)

    def runs(self, request: HttpRequest) -> JobRunQuerySet:
        """Return the runs of the site's list. Their fields are those that a page asks for."""
        site = self._admin.admin_site
        if not (site.is_registered(JobRun) and site.get_model_admin(JobRun).has_view_permission(request)):
            return JobRun.objects.none()
        runs: JobRunQuerySet = site.get_model_admin(JobRun).get_queryset(request)
        return runs.defer(None)

    def render(self, request: HttpRequest, page: Page) -> HttpResponse:
        site = self._admin.admin_site
        # For the tags and links of the admin.
        request.current_app = site.name
        # Apart from the frame: variables of Unfold, or of the project's site, may have the same names.
        content = {**page.context, "page": page, "site": self, "request": request}
        context = {
            **site.each_context(request),
            "page": page,
            "page_content": render_to_string(f"cloudrun_jobs/pages/{page.template}", content, request),
            "title": page.title,
            "is_popup": False,
            # Unfold shows them above the page.
            "model_admin": self._admin,
            "content_title": page.title,
            "has_breadcrumb_list": VERSION >= (6, 1),
            "breadcrumbs": [*self._breadcrumbs(), *page.trail],
        }
        if page.record is not None:
            context["history_url"] = self._history_url(page.record)
        if LIVE_HEADER in request.headers:
            context["messages"] = ()
        return TemplateResponse(request, "admin/cloudrun_jobs/page.html", context, status=page.status)

    def _history_url(self, record: JobRun | Job) -> str:
        view = f"{self._admin.admin_site.name}:cloudrun_jobs_{record._meta.model_name}_history"
        return reverse(view, args=[quote(record.pk)])

    def _breadcrumbs(self) -> Iterator[Link]:
        """Yield the pages of the admin above the first page of the trail."""
        site, app = self._admin.admin_site.name, self._admin.opts.app_config
        yield Link(gettext("Home"), reverse(f"{site}:index"))
        yield Link(str(app.verbose_name), reverse(f"{site}:app_list", args=[app.label]))

    def notify(self, request: HttpRequest, level: Level, message: str) -> None:
        messages.add_message(request, MESSAGE_LEVELS[level], message)
