"""Jobs and runs in the admin: see, start, cancel and rerun them.

Each start of a job in a project with the admin imports this module. The first request imports the pages.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import wraps
from typing import TYPE_CHECKING, Any, ClassVar
from uuid import UUID, uuid4

from django.contrib import admin, messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.contrib.admin.utils import unquote
from django.core.exceptions import BadRequest, PermissionDenied
from django.core.management import get_commands
from django.core.paginator import Paginator
from django.db import Error
from django.forms import Media
from django.http import Http404, HttpResponseBase, HttpResponseRedirect
from django.urls import URLPattern, path, reverse
from django.utils.cache import add_never_cache_headers
from django.utils.html import format_html
from django.utils.text import capfirst
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _
from django.views.decorators.http import require_POST

from cloudrun_jobs import conf
from cloudrun_jobs.dashboard.admin_site.filters import RUN_COLUMNS, RUN_FILTERS
from cloudrun_jobs.dashboard.paths import ADMIN_VIEW_NAMES, JOB_PATHS, RUN_PATHS
from cloudrun_jobs.dashboard.text import duration, plain, shown
from cloudrun_jobs.dashboard.view import non_atomic, view_of
from cloudrun_jobs.exceptions import CloudRunJobsError
from cloudrun_jobs.models import Job, JobRun, Progress
from cloudrun_jobs.models.querysets import LONG_FIELDS
from cloudrun_jobs.models.runs import is_run_id

if TYPE_CHECKING:
    from django.db.models import QuerySet
    from django.http import HttpRequest

    from cloudrun_jobs.dashboard.site import Level, Site
    from cloudrun_jobs.http.authentication import Caller

    ModelAdmin = admin.ModelAdmin[Any]
else:
    ModelAdmin = object  # A project combines the mixins with its own.


class ReadOnlyAdminMixin(ModelAdmin):
    """Rows that the admin shows and does not change, with pages of the dashboard."""

    #: The paths of the pages below the list, by name.
    page_paths: Mapping[str, str]

    def get_urls(self) -> list[URLPattern]:
        own = {name: pattern for name, pattern in self.page_paths.items() if name not in ADMIN_VIEW_NAMES}
        views = {f"cloudrun_jobs_{name}": (pattern, self._view(name)) for name, pattern in own.items()}
        views |= self.extra_views()
        urls = [
            path(pattern, self.admin_site.admin_view(view), name=name) for name, (pattern, view) in views.items()
        ]
        urls += super().get_urls()
        for url in urls:
            url.callback = non_atomic(self._explain_faults(url.callback))
        return urls

    def extra_views(self) -> dict[str, tuple[str, Any]]:
        """Return the views that are no pages, with their paths, by name."""
        return {}

    @property
    def media(self) -> Media:
        return super().media + Media(css={"all": ["cloudrun_jobs/pages.css", "cloudrun_jobs/admin.css"]})

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Return True if the user may see jobs and runs, or this run."""
        return request.user.has_perm("cloudrun_jobs.view_jobrun")

    def has_run_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Return True if the user may start jobs, pause them, release their locks, and rerun runs, or this run."""
        return request.user.has_perm("cloudrun_jobs.run_job")

    def has_cancel_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Return True if the user may cancel runs, or this run."""
        return request.user.has_perm("cloudrun_jobs.cancel_job")

    def show_page(self, request: HttpRequest, name: str, **parameters: Any) -> HttpResponseBase:
        """Return the response of the page of that name."""
        return view_of(name, self.load_site)(request, **parameters)

    def load_site(self, run: JobRun | None = None) -> Site:
        from cloudrun_jobs.dashboard.admin_site.pages import AdminPages

        return AdminPages(self, run)

    def _view(self, name: str) -> Any:
        def respond(request: HttpRequest, **parameters: Any) -> HttpResponseBase:
            given = {key: unquote(value) if isinstance(value, str) else value for key, value in parameters.items()}
            return self.show_page(request, name, **given)

        return respond

    def _explain_faults(self, view: Callable[..., HttpResponseBase]) -> Callable[..., HttpResponseBase]:
        """Return the view, with a page in place of an error of the database or of the settings."""

        @wraps(view)
        def respond(request: HttpRequest, *args: Any, **parameters: Any) -> HttpResponseBase:
            try:
                return view(request, *args, **parameters)
            except (Error, CloudRunJobsError) as error:
                from cloudrun_jobs.dashboard.errors import fault_of

                response = fault_of(error).response(self.load_site(), request, error)
                add_never_cache_headers(response)
                return response

        return respond


class JobAdminMixin(ReadOnlyAdminMixin):
    """The declared jobs, for a `ModelAdmin` of `cloudrun_jobs.models.Job`."""

    page_paths = JOB_PATHS

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> Any:
        return self.show_page(request, "jobs")

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: Any = None
    ) -> Any:
        return self.show_page(request, "job", command=unquote(object_id))

    def get_object(self, request: HttpRequest, object_id: str, from_field: str | None = None) -> Job | None:
        """Return the job of that name, for its history; None if there is no such command and it has no runs."""
        runs = self.load_site().runs(request)
        is_declared = object_id in get_commands()  # It may be one that cannot be imported.
        if "\0" in object_id or not (is_declared or runs.for_command(object_id).exists()):
            return None
        return Job(pk=object_id, command=object_id)


class JobRunAdminMixin(ReadOnlyAdminMixin):
    """The recorded runs, for a `ModelAdmin` of `cloudrun_jobs.models.JobRun`.

    @admin.register(JobRun)
    class RunAdmin(JobRunAdminMixin, unfold.admin.ModelAdmin):
        pass
    """

    page_paths = RUN_PATHS
    list_display: Any = RUN_COLUMNS
    list_filter: ClassVar[Any] = RUN_FILTERS
    ordering: ClassVar[Any] = ("-created_at",)
    sortable_by: ClassVar[Any] = ("created_at",)  # The order of an index.
    actions: Any = ("cancel_runs", "rerun_runs")
    list_per_page = 100
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER  # Each would count the whole table.
    search_fields: ClassVar[Any] = ("command",)  # Shows the search box; see `get_search_results()`.
    search_help_text = _("A run's id or its first eight digits, an execution, a job.")

    @admin.display(description=_("job"))
    def run_job(self, run: JobRun) -> str:
        environment = getattr(run, "other_environment", "")
        digits = f"{str(run.pk)[:8]} {environment}".rstrip()
        return format_html('{} <span class="quiet">{}</span>', shown(run.command), shown(digits))

    @admin.display(description=_("status"))
    def run_status(self, run: JobRun) -> str:
        from cloudrun_jobs.dashboard.runs.reasons import explain

        reason = explain(run.reason)
        return format_html(
            '<span class="cloudrun-jobs"><span class="status status-{}">{}</span> <small>{}</small></span>',
            run.status,
            run.get_status_display(),
            shown(reason) if reason else "",
        )

    @admin.display(description=_("duration"))
    def run_duration(self, run: JobRun) -> str:
        from cloudrun_jobs.dashboard.runs.rows import took

        return shown(duration(took(run)))

    @admin.display(description=_("progress"))
    def run_progress(self, run: JobRun) -> str:
        progress: Progress | None = getattr(run, "shown_progress", None)
        if progress is not None:
            from cloudrun_jobs.dashboard.runs.details import bar

            counted = bar(progress).text
            return shown(f"{counted}: {progress.text}" if progress.text else counted)
        if run.task_count == 1:
            return "-"
        counts = {"succeeded": run.succeeded_count, "total": run.task_count}
        return gettext("%(succeeded)s of %(total)s tasks") % counts

    @admin.display(description=_("requested by"))
    def run_requester(self, run: JobRun) -> str:
        if not run.requested_by:
            return run.get_trigger_display()
        return format_html("{} ({})", shown(run.requested_by), run.get_trigger_display())

    @admin.action(description=_("Cancel selected runs"), permissions=["cancel"])
    def cancel_runs(self, request: HttpRequest, queryset: QuerySet[Any]) -> None:
        from cloudrun_jobs.dashboard.admin_site.actions import cancel_runs

        runs = self._selected(request, queryset, self.has_cancel_permission)
        self._notify(request, cancel_runs(self._caller(request), runs))

    @admin.action(description=_("Rerun selected runs"), permissions=["run"])
    def rerun_runs(self, request: HttpRequest, queryset: QuerySet[Any]) -> HttpResponseBase | None:
        """Show the runs to be confirmed."""
        from cloudrun_jobs.dashboard.runs.excerpts import command_lines
        from cloudrun_jobs.dashboard.site import Link, Page

        runs = self._selected(request, queryset, self.has_run_permission)
        if not runs:
            return None
        site = self.load_site()
        page = Page(
            template="rerun_selected.html",
            title=gettext("Rerun selected runs"),
            # The key makes a form that is submitted twice start each run once.
            context={"rows": [*zip(runs, command_lines(runs), strict=True)], "key": uuid4()},
            trail=[Link(capfirst(str(self.opts.verbose_name_plural)), site.url("runs"))],
        )
        return site.render(request, page)

    def rerun_selected_view(self, request: HttpRequest) -> HttpResponseBase:
        """Start the confirmed runs."""
        from cloudrun_jobs.dashboard.admin_site.actions import rerun_runs
        from cloudrun_jobs.http.actions import form_key

        if not (self.has_view_permission(request) and self.has_run_permission(request)):
            raise PermissionDenied
        key, ids = form_key(request), request.POST.getlist("run")
        if key is None or not all(map(is_run_id, ids)):
            raise BadRequest("Expected ids of runs and a key.")
        runs = self._selected(request, self.get_queryset(request).filter(pk__in=ids), self.has_run_permission)
        self._notify(request, rerun_runs(self._caller(request), runs, key))
        return HttpResponseRedirect(reverse(f"{self.admin_site.name}:cloudrun_jobs_jobrun_changelist"))

    def extra_views(self) -> dict[str, tuple[str, Any]]:
        return {"cloudrun_jobs_rerun_selected": ("rerun-selected/", require_POST(self.rerun_selected_view))}

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> Any:
        if {*request.POST.getlist("action")} & {"cancel_runs", "rerun_runs"} - self.get_actions(request).keys():
            raise PermissionDenied  # Django would show the list.
        if not all(map(is_run_id, request.POST.getlist(ACTION_CHECKBOX_NAME))):
            raise BadRequest("Expected ids of runs.")
        with conf.reading_once():
            return super().changelist_view(request, extra_context)

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest) -> bool:
        """Allow the parameters of the filters: of other look-ups, a database may reject the value."""
        filters = (each[0] if isinstance(each, tuple | list) else each for each in self.get_list_filter(request))
        names = (getattr(each, "parameter_name", each) for each in filters)
        allowed = ["until", self.date_hierarchy, *names]
        is_filter = any(name and f"{lookup}__".startswith(f"{name}__") for name in allowed)
        return is_filter and super().lookup_allowed(lookup, value, request)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        return super().get_queryset(request).defer(*LONG_FIELDS)

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> Any:
        from cloudrun_jobs.dashboard.admin_site.changelist import RunListMixin

        return type("RunList", (RunListMixin, super().get_changelist(request, **kwargs)), {})

    def get_paginator(self, request: HttpRequest, queryset: Any, *args: Any, **kwargs: Any) -> Paginator[Any]:
        from cloudrun_jobs.dashboard.admin_site.changelist import CappedPaginator

        return CappedPaginator(queryset, *args, **kwargs)

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        from cloudrun_jobs.dashboard.admin_site.changelist import search_runs

        return search_runs(request, queryset, search_term), False

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: Any = None
    ) -> Any:
        try:
            run_id = UUID(unquote(object_id))
        except ValueError:
            return self._redirect_to_list(request, unquote(object_id))
        return self.show_page(request, "run", run_id=run_id)

    def show_page(self, request: HttpRequest, name: str, **parameters: Any) -> HttpResponseBase:
        if not self.has_view_permission(request):
            raise PermissionDenied
        run: JobRun | None = self.get_object(request, str(parameters["run_id"]))
        if run is None:
            from cloudrun_jobs.dashboard.site import is_live

            if is_live(request, name):
                raise Http404  # The user sees no message of it, and live.js ends.
            return self._redirect_to_list(request, str(parameters["run_id"]))
        return view_of(name, lambda: self.load_site(run))(request, **parameters)

    def _selected(
        self, request: HttpRequest, queryset: QuerySet[Any], may: Callable[[HttpRequest, JobRun], bool]
    ) -> Sequence[JobRun]:
        """Return the selected runs; none, with a message, if they are too many. Raises `PermissionDenied`."""
        from cloudrun_jobs.dashboard.admin_site.actions import MAX_SELECTED

        ids = [*queryset.values_list("pk", flat=True)[: MAX_SELECTED + 1]]
        if len(ids) > MAX_SELECTED:
            message = gettext("Select at most %(limit)d runs. No run was changed.") % {"limit": MAX_SELECTED}
            self.message_user(request, message, messages.WARNING)
            return ()
        # The arguments of a hundred runs may be a hundred megabytes.
        runs = [*self.get_queryset(request).filter(pk__in=ids).defer("argv")]
        if not all(may(request, run) for run in runs):
            raise PermissionDenied
        return runs

    def _caller(self, request: HttpRequest) -> Caller:
        caller = self.load_site().caller(request)
        if caller is None:
            raise PermissionDenied
        return caller

    def _notify(self, request: HttpRequest, found: Iterable[tuple[Level, str]]) -> None:
        site = self.load_site()
        for level, message in found:
            site.notify(request, level, message)

    def _redirect_to_list(self, request: HttpRequest, name: str) -> HttpResponseBase:
        message = gettext("No run “%(name)s” is recorded. It may have been deleted.") % {"name": plain(name)}
        self.message_user(request, message, messages.WARNING)
        return HttpResponseRedirect(reverse(f"{self.admin_site.name}:cloudrun_jobs_jobrun_changelist"))


@admin.register(Job)
class JobAdmin(JobAdminMixin, admin.ModelAdmin):  # type: ignore[type-arg]
    """The declared jobs."""


@admin.register(JobRun)
class JobRunAdmin(JobRunAdminMixin, admin.ModelAdmin):  # type: ignore[type-arg]
    """The recorded runs."""
