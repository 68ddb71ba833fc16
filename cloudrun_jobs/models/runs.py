"""The record of each run, from the request to the outcome.

Each status transition is one conditional UPDATE, so a process with stale data cannot make a forbidden one. Times
are the database server's: the clocks of other machines are not trusted.
"""

from __future__ import annotations

from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any, cast
from uuid import UUID, uuid4

from django.core.serializers.json import DjangoJSONEncoder
from django.db import models, router
from django.db.models import F, Q, Value
from django.db.models.functions import Coalesce, NullIf
from django.utils.translation import gettext_lazy as _
from django.utils.translation import pgettext_lazy

from cloudrun_jobs.exceptions import JobCancelled, JobFailed, sentence
from cloudrun_jobs.models.functions import Now
from cloudrun_jobs.models.querysets import INTERRUPTED, JobRunQuerySet, PrimaryManager
from cloudrun_jobs.models.statuses import (
    DONE,
    FINISHED,
    FORBIDDEN_SOURCES,
    ITEMS,
    NOT_RECORDED,
    SIGTERM_REASONS,
    Status,
)
from cloudrun_jobs.models.values import Progress
from cloudrun_jobs.spec import resource_name
from cloudrun_jobs.terminal import escape

if TYPE_CHECKING:
    from cloudrun_jobs.operations import ExecutionState, Operation

ALWAYS = Q()


class Trigger(models.TextChoices):
    """What triggered a run."""

    DELAY = "delay", "delay()"
    RESERVE = "reserve", "reserve()"
    SCHEDULE = "schedule", _("schedule")
    MANUAL = "manual", _("by hand")
    HTTP = "http", "HTTP"


JobRunManager = PrimaryManager.from_queryset(JobRunQuerySet)


class Record(models.Model):
    """A row that is also reloaded from the database for writes: a replica may lag behind."""

    class Meta:
        abstract = True

    def refresh_from_db(self, using: str | None = None, *args: Any, **kwargs: Any) -> None:
        if using is None and kwargs.get("from_queryset") is None:
            using = router.db_for_write(type(self), instance=self)
        super().refresh_from_db(using, *args, **kwargs)


class JobRun(Record):
    """One run of a job."""

    id = models.UUIDField(primary_key=True, default=uuid4, editable=False)
    command = models.CharField(_("job"), max_length=150)
    #: The arguments after `manage.py`, with references as the values of secret options; null if a command
    #: line cannot express them.
    argv = models.JSONField(null=True)
    #: The name of the Cloud Run Job if the command declares it; empty if it follows from command and environment.
    job_name = models.CharField(max_length=63, blank=True, default="", db_default="")
    #: What precedes `argv` in the arguments of the container: "manage.py", or nothing if its entrypoint has it.
    script = models.CharField(max_length=63, blank=True, default="", db_default="")
    #: What the request overrides of its job with `using()`: "tasks", "timeout" in seconds, "env"; null if nothing.
    overrides = models.JSONField(null=True)
    #: The run whose failed tasks this run repeats.
    rerun_of = models.ForeignKey("self", null=True, on_delete=models.SET_NULL, related_name="reruns")
    #: The shares of the first run that it repeats, as `spec.shares.Shares` encodes them; null for other runs.
    shares = models.JSONField(null=True)
    #: The number of elements of `delay_many()`, whose arguments the tasks have; null for other runs.
    elements = models.PositiveIntegerField(null=True)
    environment = models.CharField(_("environment"), max_length=63)
    #: The alias of the backend that runs it; empty for the project's default backend.
    backend = models.CharField(_("backend"), max_length=63, blank=True, default="", db_default="")
    #: The queue that it is sent to; empty for a backend without queues.
    queue = models.CharField(_("queue"), max_length=63, blank=True, default="", db_default="")
    #: The seconds that an attempt of a task may take, for a backend that gets them with the request.
    timeout = models.PositiveIntegerField(null=True)
    trigger = models.CharField(_("trigger"), max_length=10, choices=Trigger)
    #: The user, service or execution that requested the run; see `requested_by()`.
    requested_by = models.CharField(_("requested by"), max_length=200, blank=True)
    idempotency_key = models.CharField(max_length=200, null=True)  # noqa: DJ001  (with a digest; nulls are not unique)
    #: The Scheduler job that started the run, or will start it.
    schedule = models.CharField(_("schedule"), max_length=200, null=True)  # noqa: DJ001  (nulls are not unique)
    #: The due time of the schedule's tick or of the reservation.
    scheduled_for = models.DateTimeField(_("due"), null=True)

    status = models.CharField(_("status"), max_length=10, choices=Status, default=Status.PENDING)
    #: Why the run has its status, as a stable identifier: "timeout", "exit_code", "lock_held".
    reason = models.CharField(_("reason"), max_length=40, blank=True)
    created_at = models.DateTimeField(_("created"), db_default=Now())
    sent_at = models.DateTimeField(pgettext_lazy("time", "sent"), null=True)
    started_at = models.DateTimeField(_("started"), null=True)
    finished_at = models.DateTimeField(_("ended"), null=True)
    cancel_requested_at = models.DateTimeField(null=True)
    #: The end of the dispatcher's lease; after it, `reconcile` dispatches a run that is still pending.
    sending_until = models.DateTimeField(null=True)

    #: The short name of the Cloud Run execution, as its containers know it.
    execution = models.CharField(_("execution"), max_length=100, null=True, unique=True)  # noqa: DJ001  (nulls are not unique)
    #: The full resource name of the execution.
    execution_name = models.CharField(max_length=300, blank=True)
    log_uri = models.TextField(blank=True)
    image = models.TextField(_("image"), blank=True)
    task_count = models.PositiveIntegerField(default=1)
    succeeded_count = models.PositiveIntegerField(default=0)
    failed_count = models.PositiveIntegerField(default=0)
    cancelled_count = models.PositiveIntegerField(default=0)
    retried_count = models.PositiveIntegerField(default=0)

    #: Whether the execution runs (True) or is skipped (False), with all of its tasks; null while no task has
    #: decided, or if each task decides for itself.
    admitted = models.BooleanField(null=True)

    #: Whether the job has `reduce()`, which computes the result of the run from those of its tasks.
    reduces = models.BooleanField(default=False, db_default=False)
    #: Whether `reduce()` is called even if a task has failed.
    reduces_partial = models.BooleanField(default=False, db_default=False)
    #: The worker that calls `reduce()`; null until every task has ended.
    reducer = models.UUIDField(null=True)
    #: The number of attempts of a separate execution that only calls `reduce()`.
    reduce_attempts = models.PositiveIntegerField(default=0, db_default=0)
    #: The full resource name of the execution that ran the tasks, if `reconcile` has started another one for
    #: `reduce()`; `execution` is then that one.
    tasks_execution_name = models.CharField(max_length=300, blank=True, default="", db_default="")
    #: The number of items that `claim()` hands out in this run; null if it claims none.
    items_total = models.PositiveBigIntegerField(null=True)

    #: What `run()` returned; for several tasks a list by index, see `return_value`.
    result = models.JSONField(_("result"), null=True, encoder=DjangoJSONEncoder)
    error_class = models.CharField(max_length=200, blank=True)
    error_message = models.TextField(_("error"), blank=True)
    #: For staff only: it may contain confidential values.
    traceback = models.TextField(_("traceback"), blank=True)

    objects = JobRunManager()

    class Meta:
        verbose_name = _("run")
        verbose_name_plural = _("runs")
        get_latest_by = "created_at"
        permissions = [("run_job", "Can run jobs"), ("cancel_job", "Can cancel runs")]
        indexes = [
            models.Index(fields=["-created_at"], name="cloudrun_jobs_run_latest"),
            models.Index(fields=["command", "-created_at"], name="cloudrun_jobs_run_command"),
            models.Index(fields=["command", "status", "-finished_at"], name="cloudrun_jobs_run_outcome"),
            models.Index(fields=["status", "created_at"], name="cloudrun_jobs_run_status"),
            models.Index(fields=["reason", "-created_at"], name="cloudrun_jobs_run_reason"),
            models.Index(fields=["trigger", "-created_at"], name="cloudrun_jobs_run_trigger"),
        ]
        constraints = [
            models.UniqueConstraint(
                fields=["command", "environment", "idempotency_key"], name="cloudrun_jobs_one_run_per_key"
            ),
            models.UniqueConstraint(
                fields=["schedule", "scheduled_for", "command", "environment"],
                name="cloudrun_jobs_one_run_per_tick",
            ),
        ]

    def __str__(self) -> str:
        return f"{escape(self.command)} {self.id}"

    @property
    def job(self) -> str:
        """The name of the Cloud Run Job."""
        return self.job_name or resource_name(self.command, self.environment)

    @property
    def is_finished(self) -> bool:
        """True if this record says that the run has ended; see `refresh()`."""
        return self.status in FINISHED

    @property
    def has_result(self) -> bool:
        """Whether the job has recorded what `run()` returned, or that it had nothing to do."""
        return self.status in {Status.SUCCEEDED, Status.SKIPPED} and self.reason != NOT_RECORDED

    @property
    def is_interrupted(self) -> bool:
        """Whether SIGTERM ended the run: Cloud Run may report that it was cancelled."""
        return self.status == Status.FAILED and self.reason in SIGTERM_REASONS

    @property
    def is_reserved(self) -> bool:
        """True if the run has a reservation, which must be deleted once the run starts or is cancelled."""
        return self.trigger == Trigger.RESERVE and self.schedule is not None

    @property
    def operation(self) -> Operation:
        """The handle on the execution, as `delay()` returns it."""
        return cast("Operation", _handle().operation(self))

    @property
    def progress(self) -> Progress | None:
        """The latest progress of all tasks together; None if no task has reported any."""
        tasks = TaskRun.objects.filter(run=self.pk).order_by("heartbeat_at").defer("result")
        reports = [progress for task in tasks if (progress := task.progress)]
        return Progress.combined(reports, task_count=self.task_count, items=self.items_total)

    @property
    def return_value(self) -> Any:
        """What `run()` returned; for several tasks a list by index, even if it is too long for `result`.

        For a job with `reduce()`, what `reduce()` returned.
        """
        if self.result is not None or self.task_count == 1 or self.reduces:
            return self.result
        results = dict(TaskRun.objects.filter(run=self.pk).values_list("index", "result"))
        return [results.get(index) for index in range(self.task_count)] if results else None

    def task_results(self) -> list[Any]:
        """Return what `run()` returned in each task, by index; an exception for a task that did not succeed."""
        tasks = {task.index: task for task in TaskRun.objects.filter(run=self.pk)}
        return [_task_result(self, index, tasks.get(index)) for index in range(self.elements or self.task_count)]

    def refresh(self) -> JobRun:
        """Reload the record, after updating it from Cloud Run if the run is unfinished or interrupted."""
        return cast("JobRun", _handle().refresh(self))

    def cancel(self) -> bool:
        """Cancel the run; return False if it had already ended. A pending run is no longer dispatched."""
        return cast(bool, _handle().cancel(self))

    def rerun(self, *, failed_only: bool = False) -> Operation:
        """Start a new run of the same job with the same arguments. Raises `CloudRunJobsError`.

        With `failed_only`, it repeats the shares of failed tasks, and hands out the items of `claim()` that are
        not done. Raises `RerunRefused` if nothing has failed, or if another run repeats the failed tasks.
        """
        return cast("Operation", _handle().rerun(self, failed_only=failed_only))

    def transition(self, to: Status, condition: Q = ALWAYS, /, **values: Any) -> bool:
        """Change the status and set fields if the row's status allows it; return True if it did."""
        return self.update_if(~Q(status__in=FORBIDDEN_SOURCES[to]) & condition, status=to, **values)

    def update_if(self, condition: Q, /, **values: Any) -> bool:
        """Set fields on the row and on this object if the row meets the condition; return True if it did."""
        written = bool(JobRun.objects.filter(condition, pk=self.pk).update(**values))
        for name, value in values.items() if written else ():
            # A value that the server computes is read back on access.
            self.__dict__.pop(name, None) if hasattr(value, "resolve_expression") else setattr(self, name, value)
        return written

    def mark_sent(self, operation: Operation) -> bool:
        """Record the execution of the run; return False if the run has another execution already."""
        name = operation.execution_name
        execution = short_name(name)
        values: dict[str, Any] = {
            "execution": execution,
            "execution_name": name,
            "log_uri": operation.logs_url,
            "sending_until": None,
        }
        if self.transition(Status.SENT, sent_at=Now(), **values):
            return True
        # The container may have claimed the run first: keep its status, which is then read from the row.
        same = Q(execution=None) | Q(execution=execution)
        return self.update_if(same, status=F("status"), sent_at=Coalesce(F("sent_at"), Now()), **values)

    def awaits_reduction(self, state: ExecutionState) -> bool:
        """Return True if the run's tasks have ended, and a separate execution must call `reduce()`.

        `state` is that of the execution that ran the tasks.
        """
        if state.status not in {Status.SUCCEEDED, Status.FAILED}:
            return False
        running = JobRun.objects.filter(pk=self.pk, status=Status.RUNNING, reduces=True, tasks_execution_name="")
        run = running.values("task_count", "reduces_partial").first()
        if run is None:
            return False
        statuses = (
            TaskRun.objects.filter(run=self.pk).values_list("status").annotate(models.Count("pk")).order_by()
        )
        counts: dict[str, int] = dict(statuses)
        if sum(counts.get(status, 0) for status in DONE) >= run["task_count"]:
            return Status.SUCCEEDED in counts
        return bool(counts) and run["reduces_partial"] and state.status == Status.FAILED

    def assign_reduction(self, execution: str, **values: Any) -> bool:
        """Record the execution that calls `reduce()`; return False if another execution does."""
        earlier = Coalesce(NullIf(F("execution_name"), Value("")), F("execution"))
        first = Q(status=Status.RUNNING, reduces=True, tasks_execution_name="") & ~Q(execution=execution)
        own = Q(execution=execution) & ~Q(tasks_execution_name="")
        # The earlier name first: MariaDB assigns left to right.
        assigned = self.update_if(first, tasks_execution_name=earlier, execution=execution, **values)
        return assigned or self.update_if(own, execution=execution, **values)

    def apply_state(self, state: ExecutionState, execution: str | None) -> bool:
        """End the run with the state of its execution; return False if the run has ended or the execution has not.

        `execution` is the short name of the execution in that state. That of another execution is ignored.
        """
        if state.status is None or self.awaits_reduction(state):
            return False
        same = Q(execution=execution) | Q(execution=None)
        values: dict[str, Any] = {
            "finished_at": Now(),
            "reason": NOT_RECORDED if state.status == Status.SUCCEEDED else state.reason,
            # The container's own message says more.
            "error_message": Coalesce(NullIf(F("error_message"), Value("")), Value(state.message)),
            "image": state.image,
            # Without the tasks that Cloud Run has started in addition: it takes no fewer than may run at once.
            "task_count": self.elements or state.task_count,
            "succeeded_count": state.succeeded_count,
            "failed_count": state.failed_count,
            "cancelled_count": state.cancelled_count,
            "retried_count": state.retried_count,
        }
        status = Status(state.status)
        if JobRun.objects.filter(pk=self.pk).exclude(tasks_execution_name="").exists():
            # The execution only calls `reduce()`: the counts are those of the execution that ran the tasks.
            values = {name: value for name, value in values.items() if not name.endswith("_count")}
            if status == Status.FAILED:
                values["reason"] = "reduce"
            elif status == Status.SUCCEEDED and TaskRun.objects.filter(run=self.pk, status=Status.FAILED).exists():
                status, values["reason"] = Status.FAILED, "task"
        elif status == Status.SUCCEEDED and JobRun.objects.filter(pk=self.pk, admitted=False).exists():
            # The containers of a skipped execution exit with 0 as well.
            status, values["reason"], values["succeeded_count"] = Status.SKIPPED, "lock_held", 0
        failure = self._failure_by_items(status)
        ended = self.transition(Status.FAILED if failure else status, same, **{**values, **failure})
        tasks = Q(status__in=(Status.PENDING, Status.RUNNING))
        if not ended and state.status == Status.CANCELLED:
            # The container got SIGTERM and could not know why.
            values |= {"status": Status.CANCELLED, "finished_at": F("finished_at")}
            ended = self.update_if(same & INTERRUPTED, **values)
            tasks |= INTERRUPTED
        if ended:
            unfinished = TaskRun.objects.filter(tasks, run=self.pk)
            ended_at = Coalesce(F("finished_at"), Now())
            unfinished.update(status=status, reason=values["reason"], finished_at=ended_at)
            _failures().correct_progress(self)
        return ended

    def _failure_by_items(self, status: Status) -> dict[str, Any]:
        """Return the fields of a run that has failed though its tasks exit with 0: items are not done."""
        if status != Status.SUCCEEDED or self.is_finished:
            return {}
        message = _failures().describe_undone_items(self)
        return {"reason": ITEMS, "error_message": message} if message else {}


def _handle() -> ModuleType:
    """Import `runs.handle` by name: models depend on no backend, and few processes need one."""
    return import_module("cloudrun_jobs.runs.handle")


def _failures() -> ModuleType:
    from cloudrun_jobs.models import failures  # It imports this module.

    return failures


class TaskRun(Record):
    """The latest attempt of one task of a run."""

    run = models.ForeignKey(JobRun, on_delete=models.CASCADE, related_name="tasks")
    index = models.PositiveIntegerField()
    attempt = models.PositiveIntegerField(default=0)
    #: The process that makes the attempt. It recognises its own claim after a lost reply, and a superseded
    #: process can no longer write.
    worker = models.UUIDField()
    #: The worker process of a queue, such as "celery@host/1234"; empty on Cloud Run.
    process = models.CharField(max_length=200, blank=True, default="", db_default="")
    #: The number of attempts that ended because a queue worker was shut down. They are repeated in addition to
    #: `max_retries`.
    interruptions = models.PositiveIntegerField(default=0, db_default=0)
    #: Whether an attempt has worked (True) or was skipped (False), which its retries follow; null while undecided.
    admitted = models.BooleanField(null=True)
    status = models.CharField(max_length=10, choices=Status, default=Status.RUNNING)
    reason = models.CharField(max_length=40, blank=True)
    exit_code = models.SmallIntegerField(null=True)
    error_class = models.CharField(max_length=200, blank=True, default="", db_default="")
    error_message = models.TextField(blank=True, default="", db_default="")
    result = models.JSONField(null=True, encoder=DjangoJSONEncoder)
    #: For an element of `delay_many()`, the arguments after `manage.py`.
    argv = models.JSONField(null=True)
    started_at = models.DateTimeField(db_default=Now())
    finished_at = models.DateTimeField(null=True)
    heartbeat_at = models.DateTimeField(db_default=Now())
    progress_done = models.BigIntegerField(null=True)
    progress_total = models.BigIntegerField(null=True)
    progress_text = models.CharField(max_length=200, blank=True)

    objects = PrimaryManager()

    class Meta:
        verbose_name = _("task")
        verbose_name_plural = _("tasks")
        constraints = [models.UniqueConstraint(fields=["run", "index"], name="cloudrun_jobs_one_row_per_task")]

    def __str__(self) -> str:
        return f"{self.run_id}[{self.index}]"

    @property
    def progress(self) -> Progress | None:
        """The latest progress of the task; None if it has reported none."""
        if self.progress_done is None:
            return None
        return Progress(self.progress_done, self.progress_total, self.progress_text)


def _task_result(run: JobRun, index: int, task: TaskRun | None) -> Any:
    if task is None:
        return JobFailed(f"{run}: task {index} has no record.")
    if task.status in {Status.SUCCEEDED, Status.SKIPPED}:
        return task.result
    error = ": ".join(filter(None, (task.error_class, task.error_message))) or task.reason or task.status
    message = sentence(f"{run}: task {index}: {error}")
    return (JobCancelled if task.status == Status.CANCELLED else JobFailed)(message, code=task.exit_code)


def short_name(execution_name: str) -> str:
    """Return the last part of an execution's name, by which its containers know it."""
    return execution_name.rpartition("/")[2]


def is_run_id(text: str) -> bool:
    """Return True if the text is a UUID in the form of run ids."""
    try:
        return str(UUID(text)) == text.lower()
    except ValueError:
        return False
