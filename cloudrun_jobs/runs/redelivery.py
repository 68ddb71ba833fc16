"""Submit silent runs again to a backend that loses messages, and whose messages wait for a worker.

A run without a heartbeat may wait in a long queue, or its message may be lost. A duplicate message is harmless:
the record decides whether it starts an attempt.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from django.db.models import Exists, Max, OuterRef, Q, Sum
from django.utils import timezone

from cloudrun_jobs.backends import Backend
from cloudrun_jobs.environ import REDUCE_VARIABLE
from cloudrun_jobs.models import JobRun, Status, TaskRun
from cloudrun_jobs.models.functions import Now
from cloudrun_jobs.models.querysets import HEARTBEAT_TIMEOUT, NOT_LEASED, JobRunQuerySet
from cloudrun_jobs.models.statuses import DONE, FINISHED
from cloudrun_jobs.operations import ExecutionState
from cloudrun_jobs.runs import dispatch
from cloudrun_jobs.signals import run_redelivered

# A run that is silent for this long is submitted again; then after twice the time, and so on.
MIN_INTERVAL, MAX_INTERVAL = HEARTBEAT_TIMEOUT, timedelta(hours=1)


def candidates(runs: JobRunQuerySet) -> JobRunQuerySet:
    """Return the sent and running runs that may have a silent task."""
    since = Now() - HEARTBEAT_TIMEOUT
    live = TaskRun.objects.filter(run=OuterRef("pk"), finished_at=None, heartbeat_at__gt=since)
    silent = Q(task_count__gt=1) | Q(reduces=True) | ~Exists(live)
    return runs.filter(
        NOT_LEASED,
        Q(status=Status.SENT, sent_at__lt=since) | Q(silent, status=Status.RUNNING, started_at__lt=since),
    )


def state_of(run: JobRun) -> ExecutionState | None:
    """Return the state of a run whose tasks have all ended; None while one has not, or calls `reduce()`."""
    rows = TaskRun.objects.filter(run=run.pk)
    if run.tasks_execution_name or rows.filter(status__in=FINISHED).count() < run.task_count:
        return None
    if run.reducer and rows.filter(worker=run.reducer, heartbeat_at__gt=Now() - HEARTBEAT_TIMEOUT).exists():
        return None
    failed = rows.exclude(status__in=DONE).order_by("index").first()
    succeeded = rows.filter(status=Status.SUCCEEDED).count()
    return ExecutionState(
        status=Status.SUCCEEDED if failed is None else failed.status,
        reason="" if failed is None else failed.reason,
        message="" if failed is None else failed.error_message,
        task_count=run.task_count,
        succeeded_count=succeeded,
        failed_count=rows.filter(status=Status.FAILED).count(),
        cancelled_count=rows.filter(status=Status.CANCELLED).count(),
        retried_count=run.retried_count,
    )


class Redelivery:
    """Submits runs again. It counts the messages of each queue once."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self._is_complete: dict[str, bool] = {}  # Whether a queue has all of its messages.

    def redeliver(self, run: JobRun) -> str:
        """Submit the run's silent tasks again, unless their messages wait in the queue.

        Raises one of the `ServiceError`s.
        """
        request = dispatch.request_of(run)
        silent, waiting = ([], []) if run.tasks_execution_name else _silent_tasks(run)
        if run.tasks_execution_name:
            request = replace(request, extra_env={REDUCE_VARIABLE: "1"})
        elif not silent and not waiting:
            return "under way"
        last = _last_activity(run, silent)
        age = timezone.now() - last
        # Messages of other kinds may make the queue longer, so not for ever.
        if waiting and age < MAX_INTERVAL and self._has_all_messages(run.queue):
            waiting = []
            if not silent:
                return "waiting"
        request = replace(request, indexes=(*silent, *waiting))
        interval = min(max(age, MIN_INTERVAL), MAX_INTERVAL)
        if not run.update_if(NOT_LEASED & Q(status=run.status), sending_until=Now() + interval):
            return "already claimed"
        self.backend.submit(run, request, timeout=self.backend.send_deadline)
        run_redelivered.send_robust(JobRun, run=run, silent_since=last)
        return "redelivered"

    def _has_all_messages(self, queue: str) -> bool:
        """Return True if the queue has a message for each task that waits in it, or more."""
        if queue not in self._is_complete:
            waiting = self.backend.count_waiting(queue)
            runs = JobRun.objects.filter(backend=self.backend.alias, queue=queue)
            runs = runs.filter(Q(status=Status.SENT) | Q(status=Status.RUNNING, task_count__gt=1))
            tasks = runs.aggregate(count=Sum("task_count"))["count"] or 0
            started = TaskRun.objects.filter(run__in=runs).exclude(status=Status.PENDING).count()
            expected = tasks - started
            self._is_complete[queue] = waiting is not None and waiting >= expected
        return self._is_complete[queue]


def _silent_tasks(run: JobRun) -> tuple[list[int], list[int]]:
    """Return the indexes of the tasks whose heartbeat has timed out, and of those that have not started."""
    is_live = Q(heartbeat_at__gt=Now() - HEARTBEAT_TIMEOUT)
    rows = TaskRun.objects.filter(run=run.pk).exclude(status=Status.PENDING)
    started = set(rows.values_list("index", flat=True))
    silent = rows.filter(~is_live, status=Status.RUNNING).order_by("index").values_list("index", flat=True)
    return list(silent), [index for index in range(run.task_count) if index not in started]


def _last_activity(run: JobRun, silent: Sequence[int]) -> datetime:
    """Return when the silent tasks had their last heartbeat, or the run was sent."""
    rows = TaskRun.objects.filter(run=run.pk)
    tasks = rows if run.tasks_execution_name else rows.filter(index__in=silent)
    times = (run.created_at, run.sent_at, tasks.aggregate(last=Max("heartbeat_at"))["last"])
    return max(time for time in times if time is not None)
