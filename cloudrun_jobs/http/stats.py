"""Show the statistics of jobs, and when their schedules are due."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from django.http import HttpResponseBase

from cloudrun_jobs.http import query
from cloudrun_jobs.http.authentication import Caller
from cloudrun_jobs.http.endpoint import json_response
from cloudrun_jobs.models import JobRun
from cloudrun_jobs.models.values import NO_STATS, Stats
from cloudrun_jobs.registry import find_specs
from cloudrun_jobs.runs.data import stats_data
from cloudrun_jobs.runs.due import DueSchedule, due_schedules

if TYPE_CHECKING:
    from django.http import HttpRequest


def show_stats(request: HttpRequest, caller: Caller) -> HttpResponseBase:
    """Return the statistics of each job that is declared or has runs, with two queries at most."""
    query.read_query(request, {})
    by_command, specs = JobRun.objects.stats(), find_specs()
    schedules = due_schedules(specs)
    commands = sorted({*by_command, *(spec.command for spec in specs)})
    found = {command: _data(command, by_command, schedules) for command in commands if caller.may_use(command)}
    return json_response(found)


def show_stats_of(request: HttpRequest, caller: Caller, command: str) -> HttpResponseBase:
    """Return the statistics of one job, with two queries at most."""
    query.read_query(request, {})
    caller.check("read", command)
    specs = [spec for spec in find_specs() if spec.command == command]
    return json_response(_data(command, JobRun.objects.stats(command=command), due_schedules(specs)))


def _data(command: str, stats: Mapping[str, Stats], schedules: Sequence[DueSchedule]) -> dict[str, Any]:
    own = [schedule for schedule in schedules if schedule.command == command]
    return {
        **stats_data(stats.get(command, NO_STATS)),
        "next_due": _earliest(schedule.next_due for schedule in own),
        "overdue_since": _earliest(schedule.overdue_since for schedule in own),
    }


def _earliest(times: Iterable[datetime | None]) -> datetime | None:
    return min((time for time in times if time is not None), default=None)
