"""The record of each run, from the request to the outcome.

A run moves from status to status by one conditional UPDATE each, so that of two processes that know different
things only the one that may move it does. Times are the database server's: no machine's clock is trusted.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

from django.core.serializers.json import DjangoJSONEncoder
from django.db import models
from django.db.models import F, Q, Value
from django.db.models.functions import Coalesce, NullIf

from cloudrun_jobs.models.functions import Now
from cloudrun_jobs.models.querysets import JobRunQuerySet, PrimaryManager
from cloudrun_jobs.models.statuses import FINISHED, FORBIDDEN_SOURCES, Status
from cloudrun_jobs.models.values import Progress
from cloudrun_jobs.spec import resource_name

if TYPE_CHECKING:
    from cloudrun_jobs.operations import ExecutionState, Operation

ALWAYS = Q()


class Trigger(models.TextChoices):
    """What a run goes back to."""

    DELAY = "delay", "delay()"
    RESERVE = "reserve", "reserve()"
    SCHEDULE = "schedule", "its schedule"
    MANUAL = "manual", "by hand"
    HTTP = "http", "HTTP"


JobRunManager = PrimaryManager.from_queryset(JobRunQuerySet)


class JobRun(models.Model):
    """One run of a job."""

    id = models.UUIDField(primary_key=True, default=uuid4, editable=False)
    command = models.CharField(max_length=150)
    argv = models.JSONField(null=True)  # What follows `manage.py`; null where that cannot say it.
    environment = models.CharField(max_length=63)
    trigger = models.CharField(max_length=10, choices=Trigger)
    requested_by = models.CharField(max_length=200, blank=True)
    idempotency_key = models.CharField(max_length=200, null=True)  # noqa: DJ001  (with a digest; nulls are not unique)
    schedule = models.CharField(max_length=200, null=True)  # noqa: DJ001  (the entry of Cloud Scheduler)
    scheduled_for = models.DateTimeField(null=True)

    status = models.CharField(max_length=10, choices=Status, default=Status.PENDING)
    reason = models.CharField(max_length=40, blank=True)  # Why it has this status, in a word that stays.
    created_at = models.DateTimeField(db_default=Now())
    sent_at = models.DateTimeField(null=True)
    started_at = models.DateTimeField(null=True)
    finished_at = models.DateTimeField(null=True)
    cancel_requested_at = models.DateTimeField(null=True)
    sending_until = models.DateTimeField(null=True)  # A process that looks after what was left behind sends it.

    execution = models.CharField(max_length=100, null=True, unique=True)  # noqa: DJ001  (the short name)
    execution_name = models.CharField(max_length=300, blank=True)
    log_uri = models.TextField(blank=True)
    image = models.TextField(blank=True)
    task_count = models.PositiveIntegerField(default=1)
    succeeded_count = models.PositiveIntegerField(default=0)
    failed_count = models.PositiveIntegerField(default=0)
    cancelled_count = models.PositiveIntegerField(default=0)
    retried_count = models.PositiveIntegerField(default=0)

    # Of several tasks: a list, by index; see `returned`.
    result = models.JSONField(null=True, encoder=DjangoJSONEncoder)
    error_class = models.CharField(max_length=200, blank=True)
    error_message = models.TextField(blank=True)
    traceback = models.TextField(blank=True)  # For staff: it may show what users must not see.

    objects = JobRunManager()

    class Meta:
        get_latest_by = "created_at"
        indexes = [
            models.Index(fields=["-created_at"], name="cloudrun_jobs_run_latest"),
            models.Index(fields=["command", "-created_at"], name="cloudrun_jobs_run_command"),
            models.Index(fields=["command", "status", "-finished_at"], name="cloudrun_jobs_run_outcome"),
            models.Index(fields=["status", "created_at"], name="cloudrun_jobs_run_status"),
        ]
        constraints = [
            models.UniqueConstraint(
                fields=["command", "environment", "idempotency_key"], name="cloudrun_jobs_one_run_per_key"
            ),
            models.UniqueConstraint(fields=["schedule", "scheduled_for"], name="cloudrun_jobs_one_run_per_tick"),
        ]

    def __str__(self) -> str:
        return f"{self.command} {self.id}"

    @property
    def job(self) -> str:
        """The name of its Cloud Run Job."""
        return resource_name(self.command, self.environment)

    @property
    def is_finished(self) -> bool:
        """Whether it has ended, as far as is known here; see `refresh()`."""
        return self.status in FINISHED

    @property
    def is_reserved(self) -> bool:
        """Whether something waits to start it, which has to be deleted once it has begun or will not."""
        return self.trigger == Trigger.RESERVE and self.schedule is not None

    @property
    def operation(self) -> Operation:
        """The handle on its execution, as `delay()` returns it."""
        handle: Operation = _handle().operation(self)
        return handle

    @property
    def progress(self) -> Progress | None:
        """How far it is, by what its tasks told last; None if they told nothing."""
        tasks = TaskRun.objects.filter(run=self.pk).order_by("heartbeat_at")
        told = [progress for task in tasks.defer("result") if (progress := task.progress)]
        return Progress.combined(told, of=self.task_count)

    @property
    def return_value(self) -> Any:
        """What `run()` returned; of several tasks a list, by index, also where that is too long for `result`."""
        if self.result is not None or self.task_count == 1:
            return self.result
        told = dict(TaskRun.objects.filter(run=self.pk).values_list("index", "result"))
        return [told.get(index) for index in range(self.task_count)] if told else None

    def refresh(self) -> JobRun:
        """Read the row again, after asking Cloud Run about a run that should have an outcome by now."""
        run: JobRun = _handle().refresh(self)
        return run

    def cancel(self) -> bool:
        """Cancel it; return False if it had ended before. A pending run is not dispatched any more."""
        cancelled: bool = _handle().cancel(self)
        return cancelled

    def rerun(self) -> Operation:
        """Start the same job with the same arguments again, as a run of its own."""
        operation: Operation = _handle().rerun(self)
        return operation

    def transition(self, to: Status, condition: Q = ALWAYS, /, **values: Any) -> bool:
        """Bring it to another status, and set fields, if its row may still go there; say whether it did."""
        return self.update_if(~Q(status__in=FORBIDDEN_SOURCES[to]) & condition, status=to, **values)

    def update_if(self, condition: Q, /, **values: Any) -> bool:
        """Set fields, here and in its row, if the row meets the condition; say whether it did."""
        written = bool(JobRun.objects.filter(condition, pk=self.pk).update(**values))
        for name, value in values.items() if written else ():
            # What the server computes is read from it when it is asked for.
            self.__dict__.pop(name, None) if hasattr(value, "resolve_expression") else setattr(self, name, value)
        return written

    def mark_sent(self, operation: Operation) -> bool:
        """Note which execution answers the request, unless its container or another sender named one before."""
        name = operation.execution_name
        noted = {
            "execution": short_name(name),
            "execution_name": name,
            "log_uri": operation.logs_url,
            "sending_until": None,
        }
        return self.transition(Status.SENT, sent_at=Now(), **noted) or self._mark_sent_late(noted)

    def _mark_sent_late(self, noted: Mapping[str, Any]) -> bool:
        """Note the same of a run that is beyond that, but keep where it is, which is then read from the row."""
        same = Q(execution=None) | Q(execution=noted["execution"])
        return self.update_if(same, status=F("status"), sent_at=Coalesce(F("sent_at"), Now()), **noted)

    def apply_state(self, seen: ExecutionState, execution: str | None) -> bool:
        """End it as the service says its execution ended, unless its own container told before.

        `execution` is the short name of the one that was seen: another one's end is not the run's.
        """
        if seen.status is None:
            return False
        settled = self.transition(
            Status(seen.status),
            Q(execution=execution) | Q(execution=None),
            finished_at=Now(),
            reason=seen.reason,
            # What the container said itself tells more.
            error_message=Coalesce(NullIf(F("error_message"), Value("")), Value(seen.message)),
            image=seen.image,
            task_count=seen.task_count,
            succeeded_count=seen.succeeded_count,
            failed_count=seen.failed_count,
            cancelled_count=seen.cancelled_count,
            retried_count=seen.retried_count,
        )
        if settled:
            left = TaskRun.objects.filter(run=self.pk, status=Status.RUNNING)
            left.update(status=seen.status, reason=seen.reason, finished_at=Now())
        return settled


def _handle() -> ModuleType:
    """Return `runs.handle`, by name: the layer of the records knows no backend, and few processes need one."""
    return import_module("cloudrun_jobs.runs.handle")


class TaskRun(models.Model):
    """What became of one task of a run, by its latest attempt."""

    run = models.ForeignKey(JobRun, on_delete=models.CASCADE, related_name="tasks")
    index = models.PositiveIntegerField()
    attempt = models.PositiveIntegerField(default=0)
    worker = models.UUIDField()  # The process: an answer that was lost is known by it, and a dead one's voice.
    status = models.CharField(max_length=10, choices=Status, default=Status.RUNNING)
    reason = models.CharField(max_length=40, blank=True)
    exit_code = models.SmallIntegerField(null=True)
    result = models.JSONField(null=True, encoder=DjangoJSONEncoder)
    started_at = models.DateTimeField(db_default=Now())
    finished_at = models.DateTimeField(null=True)
    heartbeat_at = models.DateTimeField(db_default=Now())
    progress_done = models.BigIntegerField(null=True)
    progress_total = models.BigIntegerField(null=True)
    progress_text = models.CharField(max_length=200, blank=True)

    objects = PrimaryManager()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["run", "index"], name="cloudrun_jobs_one_row_per_task")]

    def __str__(self) -> str:
        return f"{self.run_id}[{self.index}]"

    @property
    def progress(self) -> Progress | None:
        """How far it is, by what it told last; None if it told nothing."""
        if self.progress_done is None:
            return None
        return Progress(self.progress_done, self.progress_total, self.progress_text)


def short_name(execution_name: str) -> str:
    """Return what Cloud Run tells a container its execution is called."""
    return execution_name.rpartition("/")[2]


def is_run_id(text: str) -> bool:
    """Say whether a text is a run's id, in the form in which ids are sent."""
    try:
        return str(UUID(text)) == text.lower()
    except ValueError:
        return False
