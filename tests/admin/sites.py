"""URLs of two admin sites at once. The second one admits users who are not staff, to a part of the runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.contrib import admin
from django.urls import path

from cloudrun_jobs.admin import JobAdmin, JobRunAdminMixin
from cloudrun_jobs.models import Job, JobRun

if TYPE_CHECKING:
    ModelAdmin = admin.ModelAdmin[Any]
else:
    ModelAdmin = admin.ModelAdmin


class Backstage(admin.AdminSite):
    """A site for every user who is signed in."""

    enable_nav_sidebar = False

    def has_permission(self, request: Any) -> bool:
        return bool(request.user.is_active)

    def each_context(self, request: Any) -> dict[str, Any]:
        # As django-unfold's: names that pages use as well.
        return {**super().each_context(request), "environment": "", "run": "", "job": "", "runs": (), "rows": ()}


class BackstageRuns(JobRunAdminMixin, ModelAdmin):
    """The runs of a project's own choice, with its own columns, filters and actions."""

    list_display = ("run_job", "environment", "first_argument")
    list_filter = (*JobRunAdminMixin.list_filter, "environment")
    actions = ("cancel_runs", "count_runs")

    @admin.display(description="first argument")
    def first_argument(self, run: JobRun) -> str:
        return str((run.argv or ["-"])[-1])

    @admin.action(description="Count the runs")
    def count_runs(self, request: Any, queryset: Any) -> None:
        self.message_user(request, f"{queryset.count()} runs are selected.")

    def get_queryset(self, request: Any) -> Any:
        return super().get_queryset(request).exclude(command="secret").exclude(requested_by="ceo")

    def has_cancel_permission(self, request: Any, obj: Any = None) -> bool:
        return super().has_cancel_permission(request) and (obj is None or obj.command != "keep")


backstage = Backstage("backstage")
backstage.register(JobRun, BackstageRuns)
backstage.register(Job, JobAdmin)

urlpatterns = [path("admin/", admin.site.urls), path("backstage/", backstage.urls)]
