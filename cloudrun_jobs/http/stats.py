"""Show the statistics of jobs, and when their schedules are due."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import TYPE_CHECKING

from django.http import HttpResponseBase

from cloudrun_jobs.http import query
from cloudrun_jobs.http.authentication import Caller
from cloudrun_jobs.http.endpoint import json_response
from cloudrun_jobs.models import JobRun
from cloudrun_jobs.models.values import NO_STATS
from cloudrun_jobs.registry import find_specs
from cloudrun_jobs.runs.data import stats_data
from cloudrun_jobs.runs.due import due_schedules

if TYPE_CHECKING:
    from django.http import HttpRequest


def show_stats(request: HttpRequest, caller: Caller) -> HttpResponseBase:
    """Return the statistics of each job that is declared or has runs, with two queries."""
    query.read_query(request, {})
    by_command, specs = JobRun.objects.stats(), find_specs()
    schedules = due_schedules(specs)
    found = {}
    for command in sorted({*by_command, *(spec.command for spec in specs)}):
        if not caller.may_use(command):
            continue
        own = [schedule for schedule in schedules if schedule.command == command]
        found[command] = {
            **stats_data(by_command.get(command, NO_STATS)),
            "next_due": _earliest(schedule.next_due for schedule in own),
            "overdue_since": _earliest(schedule.overdue_since for schedule in own),
        }
    return json_response(found)


def _earliest(times: Iterable[datetime | None]) -> datetime | None:
    return min((time for time in times if time is not None), default=None)
