"""Read what the page of a run shows, with a number of queries that does not depend on its tasks."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.db.models import Case, Count, Q, QuerySet, Subquery, Sum, When
from django.utils import timezone
from django.utils.formats import number_format
from django.utils.functional import cached_property
from django.utils.translation import gettext as _

from cloudrun_jobs.argv.redaction import is_redacted
from cloudrun_jobs.dashboard.runs import excerpts
from cloudrun_jobs.dashboard.runs.rows import took
from cloudrun_jobs.dashboard.site import Site
from cloudrun_jobs.dashboard.text import MAX_LENGTH
from cloudrun_jobs.execution.sharding.writing import counts
from cloudrun_jobs.models import Claims, JobRun, Progress, Status, TaskRun, failures
from cloudrun_jobs.models.statuses import DONE
from cloudrun_jobs.models.values import combined_total
from cloudrun_jobs.registry import find_job_or_none
from cloudrun_jobs.runs.data import HIDDEN
from cloudrun_jobs.runs.reruns import is_command_line
from cloudrun_jobs.spec.shares import Shares

TASKS_PER_PAGE = 100
MAX_RERUNS = 20
MAX_ARGUMENTS = 50  # of the list; the command line has all
#: The statuses of the tasks that come first.
FAILURES = (Status.FAILED, Status.LOST)
#: Read as text.
TEXTS = (*excerpts.TEXTS.values(), *excerpts.VALUES.values())
TASK_TEXTS = (*excerpts.TASK_TEXTS.values(), *excerpts.TASK_VALUES.values())


@dataclass(frozen=True, slots=True)
class Excerpt:
    """The text of a field, or its beginning, and the page of all of it; "" if there is no more."""

    text: str
    rest_url: str = ""


@dataclass(frozen=True, slots=True)
class Bar:
    """The progress of a run or of a task: as text, and in percent if the total is known."""

    text: str
    message: str
    percent: int | None


@dataclass(frozen=True, slots=True)
class TaskRow:
    """A task, with what the page shows of it."""

    task: TaskRun
    took: timedelta | None
    error: Excerpt | None
    arguments: Excerpt | None
    result_url: str
    progress: Bar | None


@dataclass(frozen=True, slots=True)
class Tasks:
    """A page of the tasks: those that failed first, then by index."""

    rows: Sequence[TaskRow]
    number: int
    has_more: bool
    unstarted: int  #: The number of tasks without a record.


@dataclass(frozen=True, slots=True)
class Items:
    """The items of `claim()`."""

    counts: Claims
    failed: Sequence[tuple[failures.FailedItem, str]]  #: Each with its JSON text.
    more_failed: int
    rest_url: str


def read_run(run_id: UUID) -> JobRun | None:
    """Return the run, with the beginnings of its texts in place of their fields; None if it is not recorded."""
    texts = TaskRun.objects.filter(run=run_id, progress_done__isnull=False).exclude(progress_text="")
    starts = {f"{field}_start": excerpts.start_of(name) for field, name in excerpts.TEXTS.items()}
    runs: QuerySet[Any] = JobRun.objects.filter(pk=run_id).annotate(
        **starts,
        arguments_start=excerpts.text_of("argv"),
        overrides_start=excerpts.text_of("overrides"),
        result_start=excerpts.start_of_json("result"),
        progress_text=Subquery(texts.order_by("-heartbeat_at").values("progress_text")[:1]),
    )
    run: JobRun | None = runs.defer(*HIDDEN, *TEXTS).first()
    if run is not None:
        arguments = excerpts.decode(vars(run)["arguments_start"])
        # No other query reads it, and what is no command line cannot be repeated.
        run.argv = arguments if is_command_line(arguments) else None
    return run


class RunDetails:
    """What the page of one run shows. `run` is that of `read_run()`."""

    def __init__(self, site: Site, run: JobRun, *, page: int = 1) -> None:
        self._site, self.run, self._page, self._now = site, run, page, timezone.now()
        self._texts: dict[str, Any] = vars(run)
        self.job = find_job_or_none(run.command)

    def excerpt(self, field: str) -> Excerpt | None:
        """Return the text of a field, or its beginning; None if it is empty."""
        start = self._texts[f"{field}_start"]
        text = excerpts.FORMATS[field](start) if field in excerpts.FORMATS else start
        return self._excerpt(field, text)

    def _excerpt(self, field: str, text: str | None) -> Excerpt | None:
        if not text:
            return None
        is_cut = len(text) > MAX_LENGTH
        return Excerpt(text, self._site.url("text", self.run.pk, field) if is_cut else "")

    @property
    def arguments(self) -> Sequence[str]:
        """The arguments after the command, for a list."""
        return (self.run.argv or [])[1 : MAX_ARGUMENTS + 1]

    @property
    def took(self) -> timedelta | None:
        return took(self.run, self._now)

    @cached_property
    def summary(self) -> dict[str, Any]:
        """Return the number of tasks that have a record, and the sums of their progress."""
        return TaskRun.objects.filter(run=self.run.pk).aggregate(
            started=Count("pk"),
            done=Sum("progress_done"),
            total=Sum("progress_total"),
            totals=Count("progress_total"),
        )

    @property
    def progress(self) -> Bar | None:
        """The progress of all tasks together; None if no task has reported any."""
        run, found = self.run, self.summary
        if found["done"] is None:
            return None
        total = combined_total(found["total"], found["totals"], task_count=run.task_count, items=run.items_total)
        return bar(Progress(found["done"], total, self._texts["progress_text"] or ""))

    @property
    def tasks(self) -> Tasks:
        """A page of the tasks."""
        first = (self._page - 1) * TASKS_PER_PAGE
        rows: QuerySet[Any] = TaskRun.objects.filter(run=self.run.pk).annotate(
            error_start=excerpts.start_of("error_message"),
            arguments_start=excerpts.start_of_json("argv"),
            has_result=Q(result__isnull=False),
            rank=Case(When(status__in=FAILURES, then=0), default=1),
        )
        found = rows.defer(*TASK_TEXTS).order_by("rank", "index")[first : first + TASKS_PER_PAGE + 1]
        tasks = list(found)
        return Tasks(
            rows=[self._task_row(task) for task in tasks[:TASKS_PER_PAGE]],
            number=self._page,
            has_more=len(tasks) > TASKS_PER_PAGE,
            unstarted=max(0, self.run.task_count - max(self.summary["started"], self._ended)),
        )

    @property
    def _ended(self) -> int:
        """The number of tasks that the service reports as ended, of which some may have no record."""
        return self.run.succeeded_count + self.run.failed_count + self.run.cancelled_count

    def _task_row(self, task: Any) -> TaskRow:
        field = f"task-{task.index}"
        exit_status = _("exit status %(code)s") % {"code": task.exit_code} if task.exit_code else ""
        # The run has the results of its tasks, unless they are too long.
        in_task = task.has_result and self._texts["result_start"] is None
        return TaskRow(
            task=task,
            took=self._task_duration(task),
            error=self._excerpt(f"{field}-error", task.error_start or exit_status),
            arguments=self._excerpt(f"{field}-arguments", excerpts.command_line(task.arguments_start)),
            result_url=self._site.url("text", self.run.pk, f"{field}-result") if in_task else "",
            progress=None if task.progress is None else bar(task.progress),
        )

    def _task_duration(self, task: TaskRun) -> timedelta | None:
        end: datetime | None = task.finished_at or (self._now if task.status == Status.RUNNING else None)
        return None if end is None else max(end - task.started_at, timedelta(0))

    @cached_property
    def items(self) -> Items | None:
        """The items of the run; None if it claims none."""
        if not failures.claims_items(self.run):
            return None
        origin = Shares.decode(self.run.shares).origin if self.run.shares else self.run.pk
        found, failed = counts(origin), failures.first_failed_items(self.run)[: failures.MAX_LISTED]
        if not (sum(found) or failed):
            return None
        texts = [(item, json.dumps(item.item, ensure_ascii=False)) for item in failed]
        is_cut = any(len(text) > MAX_LENGTH or len(item.error_message) > MAX_LENGTH for item, text in texts)
        rest_url = self._site.url("text", self.run.pk, excerpts.ITEMS) if is_cut else ""
        return Items(found, texts, found.failed - len(texts), rest_url)

    @cached_property
    def reruns(self) -> list[JobRun]:
        """The newest runs that repeat failed tasks of this one."""
        # Django 5.2 reads the reference of each row if it is deferred.
        return list(self.run.reruns.newest_first().only("status", "created_at", "rerun_of")[:MAX_RERUNS])

    @property
    def can_rerun(self) -> bool:
        """Whether the run can be repeated: its command exists, and all of its arguments are recorded."""
        run = self.run
        return bool(self.job and run.is_finished and run.argv and not any(map(is_redacted, run.argv)))

    @property
    def can_rerun_failed(self) -> bool:
        """Whether failed tasks or items of the run may be repeated; a request may still be refused."""
        has_started = self.summary["started"] > 0 or self.run.shares is not None
        return self.can_rerun and has_started and not self.reruns and self._has_failures

    @property
    def _has_failures(self) -> bool:
        items = self.items
        return self.run.status not in DONE or (items is not None and items.counts.failed + items.counts.left > 0)

    def counts(self) -> Iterator[tuple[str, int]]:
        """Yield the outcomes of the tasks, and the number of each."""
        names = {
            "succeeded_count": _("Succeeded"),
            "failed_count": _("Failed"),
            "cancelled_count": _("Cancelled"),
            "retried_count": _("Retries"),
        }
        return ((label, count) for name, label in names.items() if (count := getattr(self.run, name)))


def bar(progress: Progress) -> Bar:
    """Return the progress as text and in percent."""
    done, total = (None if each is None else number_format(each, force_grouping=True) for each in progress[:2])
    if progress.total is None:
        return Bar(str(done), progress.text, None)
    text = _("%(done)s of %(total)s") % {"done": done, "total": total}
    part = progress.done * 100 // progress.total if progress.total > 0 else 100
    return Bar(text, progress.text, min(max(part, 0), 100))
