"""The columns and filters of the admin's list of runs. Each filter is a look-up in an index.

Each start of a job in a project with the admin imports this module.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import date, datetime, time, timedelta
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.contrib import admin
from django.contrib.admin.options import IncorrectLookupParameters
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from cloudrun_jobs.dashboard.text import plain
from cloudrun_jobs.models import JobRun, Status, Trigger

if TYPE_CHECKING:
    from django.contrib.admin.views.main import ChangeList
    from django.db.models import QuerySet
    from django.http import HttpRequest

#: The columns of the list, most of them methods of `JobRunAdminMixin`.
RUN_COLUMNS = ("run_job", "run_status", "created_at", "run_duration", "run_progress", "run_requester")
#: The fields of the parameters that have another name, as in the dashboard.
LOOKUPS = {"job": "command"}
#: The links above the dates, each with the days before today.
PERIODS = ((_("Today"), 0), (_("Last 7 days"), 6), (_("Last 30 days"), 29))


def distinct_values(request: HttpRequest, column: str) -> Sequence[str]:
    """Return the values of the column, read once for each request."""
    read: dict[str, list[str]] = request.__dict__.setdefault("_cloudrun_jobs_values", {})
    if column not in read:
        read[column] = JobRun.objects.distinct_values(column)
    return read[column]


class ValueFilter(admin.SimpleListFilter):
    """Selects the runs with one value of a field."""

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        value = self.value()
        if not value:
            return queryset
        # Databases reject some texts, such as NUL, that no run has.
        return queryset.filter(**{f"{self.field}__in": [*self.matching(request, value)]})

    @property
    def field(self) -> str:
        return LOOKUPS.get(str(self.parameter_name), str(self.parameter_name))

    def matching(self, request: HttpRequest, value: str) -> Iterator[str]:
        """Yield the values of runs that the parameter stands for."""
        return (known for known, _label in self.lookup_choices if known == value)

    def has_output(self) -> bool:
        return super().has_output() or bool(self.value())


class StatusFilter(ValueFilter):
    """Selects the runs with a status."""

    title = _("status")
    parameter_name = "status"

    def lookups(self, request: HttpRequest, model_admin: Any) -> Sequence[tuple[str, Any]]:
        return Status.choices


class TriggerFilter(ValueFilter):
    """Selects the runs with a trigger."""

    title = _("trigger")
    parameter_name = "trigger"

    def lookups(self, request: HttpRequest, model_admin: Any) -> Sequence[tuple[str, Any]]:
        return Trigger.choices


class FormFilter(admin.SimpleListFilter):
    """A filter with form controls, which keeps the other filters."""

    template = "admin/cloudrun_jobs/filter_form.html"
    #: The template of the controls.
    controls: str

    def choices(self, changelist: ChangeList) -> Iterator[Any]:
        """Yield what the template shows: the parameters of the other filters and of the search."""
        given = changelist.filter_params.items()
        own = self.expected_parameters()
        yield {"kept": [(name, value) for name, values in given if name not in own for value in values]}


class SelectFilter(ValueFilter, FormFilter):
    """Selects the runs with one of the values that runs have, of which there may be hundreds."""

    controls = "admin/cloudrun_jobs/filter_select.html"

    def lookups(self, request: HttpRequest, model_admin: Any) -> Sequence[tuple[str, str]]:
        values = distinct_values(request, self.field)
        return [(plain(value), plain(self.label(value))) for value in values if value]

    def label(self, value: str) -> Any:
        return value

    def matching(self, request: HttpRequest, value: str) -> Iterator[str]:
        return (each for each in distinct_values(request, self.field) if value in {each, plain(each)})


class JobFilter(SelectFilter):
    """Selects the runs of a job."""

    title = _("job")
    parameter_name = "job"


class ReasonFilter(SelectFilter):
    """Selects the runs whose status has a reason."""

    title = _("reason")
    parameter_name = "reason"

    def label(self, value: str) -> Any:
        from cloudrun_jobs.dashboard.runs.reasons import explain

        return explain(value)


class CreatedFilter(FormFilter):
    """Selects the runs that were created from one day to another."""

    title = _("created")
    parameter_name = "since"
    controls = "admin/cloudrun_jobs/filter_dates.html"

    def __init__(self, request: HttpRequest, params: dict[str, Any], *args: Any) -> None:
        super().__init__(request, params, *args)
        if given := params.pop("until", None):
            self.used_parameters["until"] = given[-1]
        self.since, self.until = (self._day(name) for name in ("since", "until"))

    def expected_parameters(self) -> list[str | None]:
        return ["since", "until"]

    def lookups(self, request: HttpRequest, model_admin: Any) -> Sequence[tuple[str, Any]]:
        return ()

    def has_output(self) -> bool:
        return True

    def choices(self, changelist: ChangeList) -> Iterator[Any]:
        for shown in super().choices(changelist):
            today = timezone.localdate() if settings.USE_TZ else date.today()  # noqa: DTZ011  (as the database)
            periods = [(text, today - timedelta(days=days)) for text, days in PERIODS]
            links = [self._link(changelist, *each) for each in ((_("Any date"), None), *periods)]
            yield {**shown, "links": links}

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        try:
            if self.since is not None:
                queryset = queryset.filter(created_at__gte=_midnight(self.since))
            if self.until is not None:
                queryset = queryset.filter(created_at__lt=_midnight(self.until + timedelta(days=1)))
        except OverflowError as error:
            raise IncorrectLookupParameters(error) from error
        return queryset

    def _day(self, name: str) -> date | None:
        text = self.used_parameters.get(name)
        try:
            return date.fromisoformat(text) if text else None
        except ValueError as error:
            raise IncorrectLookupParameters(error) from error

    def _link(self, changelist: ChangeList, text: Any, since: date | None) -> dict[str, Any]:
        parameters = {"since": since and since.isoformat(), "until": None}
        return {
            "text": text,
            "url": changelist.get_query_string(parameters),
            "selected": self.until is None and self.since == since,
        }


def _midnight(day: date) -> datetime:
    """Return the start of the day in the current time zone."""
    start = datetime.combine(day, time())
    if not settings.USE_TZ:
        return start
    aware = timezone.make_aware(start)
    aware.utctimetuple()  # Raises OverflowError if the database could not have it in UTC.
    return aware


RUN_FILTERS = (StatusFilter, JobFilter, ReasonFilter, TriggerFilter, CreatedFilter)
