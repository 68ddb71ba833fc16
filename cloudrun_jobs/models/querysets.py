"""Managers and querysets for run records."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from functools import reduce
from itertools import pairwise
from operator import or_
from typing import TYPE_CHECKING, TypeVar
from uuid import UUID

from django.db import connections, models, router
from django.db.models import Q, Value
from django.db.models.functions import Cast, StrIndex
from django.db.models.lookups import GreaterThan

from cloudrun_jobs.models.functions import Now
from cloudrun_jobs.models.statistics import read_last_runs, read_last_ticks, read_stats, read_values
from cloudrun_jobs.models.statuses import SIGTERM_REASONS, UNFINISHED, Status
from cloudrun_jobs.models.values import Stats

if TYPE_CHECKING:
    from cloudrun_jobs.models.runs import JobRun

HEARTBEAT_TIMEOUT = timedelta(minutes=2)  # Six heartbeats.

# A run whose heartbeat has timed out is watched for this long before it is marked as lost: after an outage of the
# database, all heartbeats are old.
LIVENESS_GRACE_SECONDS = 30.0

#: What lists and actions do not load.
LONG_FIELDS = ("result", "traceback")

MIN_PREFIX = 8  # digits of a run's id
GROUPS = (8, 12, 16, 20, 32)  # The digits before each hyphen of a UUID, and all of them.

# No process is dispatching the run.
NOT_LEASED = Q(sending_until=None) | Q(sending_until__lt=Now())

# Pending runs whose dispatcher has died or given up. Those that wait for a reservation have its key as schedule.
UNSENT = Q(NOT_LEASED, Q(schedule=None) | ~Q(trigger="reserve"), status=Status.PENDING)

# Runs and tasks that SIGTERM ended. For this long after its end, Cloud Run is queried whether it was cancelled.
INTERRUPTED = Q(status=Status.FAILED, reason__in=SIGTERM_REASONS)
INTERRUPTION_QUERY_PERIOD = timedelta(hours=1)

Row = TypeVar("Row", bound=models.Model, covariant=True)


class PrimaryManager(models.Manager[Row]):
    """Reads from the database for writes: a replica may lag behind."""

    def get_queryset(self) -> models.QuerySet[Row]:
        return super().get_queryset().using(router.db_for_write(self.model))


def _contains(text: str) -> Q:
    """Return the condition that `argv_text` contains the text, in this case."""
    # LIKE ignores case on SQLite, and INSTR() on MySQL.
    return Q(GreaterThan(StrIndex("argv_text", Value(text)), 0), argv_text__contains=text)


class JobRunQuerySet(models.QuerySet["JobRun"]):
    """Queryset of run records."""

    def for_command(self, command: str | type) -> JobRunQuerySet:
        """Return the runs of a job, given its class or its name."""
        name = command if isinstance(command, str) else command.__module__.rpartition(".")[2]
        return self.filter(command=name)

    def with_arguments(self, arguments: Sequence[str]) -> JobRunQuerySet:
        """Return the runs that have each of these arguments, as `delay()` writes them: "--id=7"."""
        runs = self.annotate(argv_text=Cast("argv", models.TextField()))
        for argument in arguments:
            # Some databases store non-ASCII characters as escapes.
            texts = {json.dumps(argument), json.dumps(argument, ensure_ascii=False)}
            runs = runs.filter(reduce(or_, map(_contains, texts)))
        return runs

    def running(self) -> JobRunQuerySet:
        """Return the unfinished runs, including those that have not started."""
        return self.filter(status__in=UNFINISHED)

    def failed(self) -> JobRunQuerySet:
        """Return the runs that failed or were lost."""
        return self.filter(status__in=(Status.FAILED, Status.LOST))

    def unsent(self) -> JobRunQuerySet:
        """Return the pending runs whose dispatcher has died or given up."""
        return self.filter(UNSENT)

    def silent(self, timeout: timedelta = HEARTBEAT_TIMEOUT) -> JobRunQuerySet:
        """Return the dispatched or running runs without a recent heartbeat."""
        since = Now() - timeout
        overdue = Q(status=Status.SENT, sent_at__lt=since) | Q(status=Status.RUNNING, started_at__lt=since)
        return self.filter(overdue).exclude(tasks__heartbeat_at__gt=since)

    def interrupted(self) -> JobRunQuerySet:
        """Return the runs that SIGTERM ended recently: Cloud Run may have cancelled them."""
        return self.filter(INTERRUPTED, finished_at__gt=Now() - INTERRUPTION_QUERY_PERIOD)

    def abandoned(self, *, runs_in_process: bool) -> JobRunQuerySet:
        """Return the silent runs without an execution to query; in process, all silent and all unsent runs."""
        if not runs_in_process:
            return self.silent().filter(execution=None)
        # A run with a time limit of its own was sent to a queue, before its backend was disabled.
        return (self.silent() | self.unsent()).filter(timeout=None)

    def newest_first(self) -> JobRunQuerySet:
        """Order the runs by creation, newest first."""
        return self.order_by("-created_at")

    def commands(self) -> Iterator[str]:
        """Yield the names of the jobs that have runs, with one index look-up each."""
        names, name = self.order_by("command").values_list("command", flat=True), ""
        while name := names.filter(command__gt=name).first() or "":
            yield name

    def distinct_values(self, column: str) -> list[str]:
        """Return the values of a column that an index begins with, with one query. Filters do not apply."""
        return read_values(self, column)

    def with_id_prefix(self, prefix: str) -> JobRunQuerySet:
        """Return the runs whose ids begin with the prefix, eight digits or more; for other text, no runs."""
        digits = prefix.lower().replace("-", "")
        if not re.fullmatch(f"[0-9a-f]{{{MIN_PREFIX},{GROUPS[-1]}}}", digits):
            return self.none()
        connection = connections[self.db]
        if connection.vendor == "mysql" and connection.features.has_native_uuid_field:
            # MariaDB sorts a UUID by its last digits.
            text = "-".join(filter(None, (digits[start:end] for start, end in pairwise((0, *GROUPS)))))
            return self.annotate(id_text=Cast("pk", models.CharField())).filter(id_text__startswith=text)
        first, last = (UUID(digits.ljust(GROUPS[-1], digit)) for digit in "0f")
        return self.filter(pk__gte=first, pk__lte=last)

    def stats(self, newest: int = 100, command: str | None = None) -> dict[str, Stats]:
        """Return the outcomes of every job's newest runs, or of one job's, by job name, with one query.

        Filters do not apply.
        """
        return read_stats(self, newest, command)

    def last_runs(self, environment: str, commands: Sequence[str], fields: Sequence[str]) -> dict[str, JobRun]:
        """Return the newest run of each of these jobs by the job's name, with two queries."""
        return read_last_runs(self, environment, commands, fields)

    def last_ticks(self, environment: str, schedules: Sequence[str]) -> dict[str, datetime]:
        """Return the last ticks of these Scheduler jobs by their names, with one query. Filters do not apply."""
        return read_last_ticks(self, environment, schedules)
