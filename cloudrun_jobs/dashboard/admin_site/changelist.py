"""The admin's list of runs: its columns, its pages and its search, of a table with millions of rows."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.contrib.admin.views.main import SEARCH_VAR, ChangeList, ChangeListSearchForm
from django.core.exceptions import FieldDoesNotExist
from django.core.paginator import Paginator
from django.db.models import Q, QuerySet
from django.utils.functional import cached_property

from cloudrun_jobs import conf
from cloudrun_jobs.dashboard.admin_site.filters import RUN_COLUMNS, distinct_values
from cloudrun_jobs.models import JobRun
from cloudrun_jobs.models.querysets import LONG_FIELDS
from cloudrun_jobs.models.runs import short_name
from cloudrun_jobs.registry import find_specs
from cloudrun_jobs.runs.data import read_progress
from cloudrun_jobs.spec import resource_name

if TYPE_CHECKING:
    from django.http import HttpRequest

    AnyPaginator = Paginator[Any]
else:
    AnyPaginator = Paginator  # Not generic at run time.

MAX_COUNT = 2000  # rows
MAX_FOUND = 100  # rows whose ids begin with the same digits
MAX_SEARCH = 300  # characters; the full name of an execution has fewer

#: What the columns of `JobRunAdminMixin` show, and what names a run elsewhere in the admin.
FIELDS = (
    *("id", "command", "environment", "status", "reason", "trigger", "requested_by"),
    *("created_at", "started_at", "finished_at", "task_count", "succeeded_count", "items_total"),
)
#: The columns for which the list loads these fields, and the box of the actions.
KNOWN_COLUMNS = {*RUN_COLUMNS, "action_checkbox"}


class CappedCount(int):
    """A count that may be too low: "2,000+"."""

    def __str__(self) -> str:
        # Django groups the digits itself with this setting.
        return int.__repr__(self) if settings.USE_THOUSAND_SEPARATOR else f"{int(self):,}+"


class CappedPaginator(AnyPaginator):
    """Counts no more rows than `MAX_COUNT`: a count of all runs reads the whole table."""

    @cached_property
    def count(self) -> int:
        runs: Any = self.object_list
        counted: int = runs.order_by()[: MAX_COUNT + 1].count()
        return counted if counted <= MAX_COUNT else CappedCount(MAX_COUNT)

    @property
    def is_capped(self) -> bool:
        """True if there are more rows than the pages show."""
        return isinstance(self.count, CappedCount)


class SearchForm(ChangeListSearchForm):
    """Accepts any text: no run has what is not valid in a name."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields[SEARCH_VAR].validators.clear()


class RunListMixin(ChangeList):
    """Loads the columns that are shown, and the progress of all runs on the page with one query."""

    search_form_class = SearchForm

    def get_queryset(self, *args: Any, **kwargs: Any) -> QuerySet[Any]:
        queryset = super().get_queryset(*args, **kwargs)
        shown = [field for name in self.list_display if (field := self._field_of(name))]
        if all(map(self._is_known, self.list_display)):
            return queryset.defer(None).only(*FIELDS, *shown)
        # A column that a project computes may read any field.
        return queryset.defer(None).defer(*{*LONG_FIELDS} - {*shown})

    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)
        ids = {run.pk for run in self.result_list if not run.is_finished}
        progress = {run.pk: progress for run, progress in read_progress(ids, only=FIELDS)} if ids else {}
        environment = conf.load().environment
        for run in self.result_list:
            run.shown_progress = progress.get(run.pk)
            run.other_environment = "" if run.environment == environment else run.environment

    def _field_of(self, name: Any) -> str | None:
        try:
            field = self.lookup_opts.get_field(name)
        except FieldDoesNotExist:
            return None
        return field.name if field.concrete else None

    def _is_known(self, name: Any) -> bool:
        return name in KNOWN_COLUMNS or self._field_of(name) is not None


def search_runs(request: HttpRequest, runs: QuerySet[Any], text: str) -> QuerySet[Any]:
    """Return the runs of the jobs that the text names, or the run whose id or execution it names."""
    text = text.strip()
    if not text:
        return runs
    if "\0" in text or len(text) > MAX_SEARCH:
        return runs.none()
    if commands := _commands(request, text):
        return runs.filter(command__in=commands)
    ids = [*JobRun.objects.with_id_prefix(text).values_list("pk", flat=True)[:MAX_FOUND]]
    return runs.filter(Q(execution=short_name(text)) | Q(pk__in=ids))


def _commands(request: HttpRequest, text: str) -> Collection[str]:
    """Return the jobs whose command has the text, or whose Cloud Run Job it names."""
    commands, environment = distinct_values(request, "command"), conf.load().environment
    found = [command for command in commands if text.casefold() in command.casefold()]
    return (
        found
        or [command for command in commands if resource_name(command, environment) == text]
        or [spec.command for spec in find_specs() if spec.name == text]
    )
