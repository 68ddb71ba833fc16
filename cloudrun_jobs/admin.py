"""Jobs and runs in the admin: see, start, cancel and rerun them.

Each start of a job in a project with the admin imports this module. The first request imports the pages.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from django.contrib import admin
from django.urls import URLPattern, path

from cloudrun_jobs.dashboard.paths import JOB_PATHS, RUN_PATHS
from cloudrun_jobs.dashboard.view import view_of
from cloudrun_jobs.models import JobRun
from cloudrun_jobs.models.jobs import Job

if TYPE_CHECKING:
    from django.http import HttpRequest

    from cloudrun_jobs.dashboard.site import Site

    ModelAdmin = admin.ModelAdmin[Any]
else:
    ModelAdmin = admin.ModelAdmin  # Not generic at run time.


class ReadOnlyAdmin(ModelAdmin):
    """Rows that the admin shows and does not change."""

    def page_urls(self, paths: Mapping[str, str]) -> list[URLPattern]:
        """Return the URLs of these pages, for `get_urls()`."""
        wrap = self.admin_site.admin_view
        return [
            path(pattern, wrap(view_of(name, self._load_site)), name=f"cloudrun_jobs_{name}")
            for name, pattern in paths.items()
        ]

    def _load_site(self) -> Site:
        from cloudrun_jobs.dashboard.admin_pages import AdminPages

        return AdminPages(self.admin_site)

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return request.user.has_perm("cloudrun_jobs.view_jobrun")


@admin.register(Job)
class JobAdmin(ReadOnlyAdmin):
    """The declared jobs."""

    def get_urls(self) -> list[Any]:
        return [*self.page_urls(JOB_PATHS), *super().get_urls()]


@admin.register(JobRun)
class JobRunAdmin(ReadOnlyAdmin):
    """The recorded runs."""

    def get_urls(self) -> list[Any]:
        return [
            *self.page_urls({name: RUN_PATHS[name] for name in RUN_PATHS if name != "runs"}),
            *super().get_urls(),
        ]
