"""What is asked of the table of the runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar

from django.db import models, router
from django.db.models import Q, Subquery

from cloudrun_jobs.models.functions import Now
from cloudrun_jobs.models.statuses import UNFINISHED, Status
from cloudrun_jobs.models.values import Stats

if TYPE_CHECKING:
    from cloudrun_jobs.models.runs import JobRun  # noqa: F401  (of the annotations)

HEARTBEAT_TIMEOUT = timedelta(minutes=2)  # Six heartbeats.
LIVENESS_GRACE_SECONDS = (
    30.0  # Seconds in which a process that lives is heard, if the database is there to hear it.
)

# The requests whose sender is dead, or has long given up.
UNSENT = Q(Q(sending_until=None) | Q(sending_until__lt=Now()), status=Status.PENDING, schedule=None)

Row = TypeVar("Row", bound=models.Model, covariant=True)


class PrimaryManager(models.Manager[Row]):
    """Asks the database that is written to: a replica may not know yet what was recorded a moment ago."""

    def get_queryset(self) -> models.QuerySet[Row]:
        return super().get_queryset().using(router.db_for_write(self.model))


class JobRunQuerySet(models.QuerySet["JobRun"]):
    """Runs, by what people ask for."""

    def for_command(self, command: str | type) -> JobRunQuerySet:
        """Return the runs of one job, given its class or its name."""
        name = command if isinstance(command, str) else command.__module__.rpartition(".")[2]
        return self.filter(command=name)

    def running(self) -> JobRunQuerySet:
        """Return the runs that have not ended, those included that have not begun."""
        return self.filter(status__in=UNFINISHED)

    def failed(self) -> JobRunQuerySet:
        """Return the runs that failed or were lost."""
        return self.filter(status__in=(Status.FAILED, Status.LOST))

    def unsent(self) -> JobRunQuerySet:
        """Return the requests whose sender is dead, or has long given up."""
        return self.filter(UNSENT)

    def silent(self) -> JobRunQuerySet:
        """Return the runs under way of which no task has been heard lately."""
        since = Now() - HEARTBEAT_TIMEOUT
        under_way = Q(status=Status.SENT, sent_at__lt=since) | Q(status=Status.RUNNING, started_at__lt=since)
        return self.filter(under_way).exclude(tasks__heartbeat_at__gt=since)

    def newest_first(self) -> JobRunQuerySet:
        """Return the runs in the order of lists of them."""
        return self.order_by("-created_at")

    def commands(self) -> Iterator[str]:
        """Yield the names of the jobs that have runs, each found by one look into an index."""
        names, name = self.order_by("command").values_list("command", flat=True), ""
        while name := names.filter(command__gt=name).first() or "":
            yield name

    def stats(self, newest: int = 100) -> dict[str, Stats]:
        """Return how each job fares, by its name: how its newest runs ended, and when the last ones did.

        It costs two queries for each job, and as much with a million runs as with a thousand.
        """
        return {command: self.for_command(command)._stats(newest) for command in self.commands()}

    def _stats(self, newest: int) -> Stats:
        last = [self._last_end(status) for status in (Status.SUCCEEDED, Status.FAILED, Status.LOST)]
        # None of the three subqueries depends on the row: the database does each once.
        rows = list(self.newest_first().values_list("status", *last)[:newest])
        success, *failures = rows[0][1:] if rows else (None,)
        return Stats(
            counts=dict(Counter(Status(row[0]) for row in rows)),
            last_success=success,
            last_failure=max(filter(None, failures), default=None),
        )

    def _last_end(self, status: Status) -> Subquery:
        # By a column that no other index is sorted by: PostgreSQL would walk that one, past a million runs.
        return Subquery(self.filter(status=status).order_by("-finished_at").values("finished_at")[:1])
