"""Read a page of the list of runs: filtered, newest first, without counting them."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from django import forms
from django.core.exceptions import ValidationError
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from cloudrun_jobs import conf
from cloudrun_jobs.dashboard.runs.rows import run_row
from cloudrun_jobs.dashboard.site import Site
from cloudrun_jobs.http.cursor import Cursor, read_page
from cloudrun_jobs.http.query import MAX_YEAR, MIN_YEAR
from cloudrun_jobs.models import JobRun, Status, Trigger
from cloudrun_jobs.registry import find_jobs
from cloudrun_jobs.runs.data import LISTED

if TYPE_CHECKING:
    from django.http import HttpRequest

ANY = [("", gettext_lazy("any"))]
TIME_INPUT = forms.DateTimeInput(attrs={"type": "datetime-local"}, format="%Y-%m-%dT%H:%M")


def check_year(value: datetime) -> None:
    """Raise `ValidationError` for a time that databases do not compare alike."""
    if not MIN_YEAR <= value.year <= MAX_YEAR:
        years = {"first": MIN_YEAR, "last": MAX_YEAR}
        raise ValidationError(_("Enter a year from %(first)s to %(last)s."), params=years)


class Filters(forms.Form):
    """The filters of the list."""

    job = forms.CharField(
        label=gettext_lazy("Job"), required=False, max_length=150, widget=forms.TextInput({"list": "jobs"})
    )
    status = forms.ChoiceField(label=gettext_lazy("Status"), required=False, choices=[*ANY, *Status.choices])
    trigger = forms.ChoiceField(label=gettext_lazy("Trigger"), required=False, choices=[*ANY, *Trigger.choices])
    since = forms.DateTimeField(
        label=gettext_lazy("Created since"), required=False, widget=TIME_INPUT, validators=[check_year]
    )
    until = forms.DateTimeField(
        label=gettext_lazy("Created until"), required=False, widget=TIME_INPUT, validators=[check_year]
    )

    def given(self) -> dict[str, str]:
        """Return the filters that are set, as the query has them."""
        return {name: value for name in self.fields if (value := self.data.get(name))}


def read(site: Site, request: HttpRequest) -> dict[str, Any]:
    """Return the runs that the query asks for. An invalid filter is reported, and no run is shown."""
    filters = Filters(request.GET, label_suffix="")
    after, problem = request.GET.get("after", ""), ""
    runs, cursor = JobRun.objects.only("environment", *LISTED), None
    if not filters.is_valid():
        runs = runs.none()
    try:
        cursor = Cursor.decode(after) if after else None
    except ValueError:
        problem = _("The address of the page is invalid. These are the newest runs.")
    values = {name: value for name, value in filters.cleaned_data.items() if value}
    if job := values.pop("job", ""):
        runs = runs.for_command(job)
    page, following = read_page(runs, values, cursor)
    return {
        "filters": filters,
        "problem": problem,
        "is_filtered": bool(filters.given()),
        "rows": [run_row(site, run) for run in page],
        "environment": conf.load().environment,
        "jobs": sorted(find_jobs().jobs),
        "newest_url": _url(filters) if cursor else "",
        "older_url": _url(filters, after=following) if following else "",
    }


def _url(filters: Filters, **parameters: str) -> str:
    return f"?{urlencode({**filters.given(), **parameters})}"
