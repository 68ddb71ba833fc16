"""The handle on a run of a backend whose state is in the record alone, or can be queried with `get_state()`."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from django.db.models import Q

from cloudrun_jobs.backends.base import TRANSIENT_ERRORS
from cloudrun_jobs.backends.inline import PollingOperation
from cloudrun_jobs.exceptions import CloudRunJobsError, ServiceError
from cloudrun_jobs.locks import executions
from cloudrun_jobs.models import JobRun, Status, TaskRun
from cloudrun_jobs.models.functions import Now
from cloudrun_jobs.operations import MockExecution
from cloudrun_jobs.process import commits
from cloudrun_jobs.signals import run_record_failed

if TYPE_CHECKING:
    from cloudrun_jobs.backends.base import Backend


class RecordOperation(PollingOperation):
    """A handle on one run, which polls the record. `name` is the name of the execution, once it is known."""

    def __init__(self, run: JobRun, backend: Backend, name: str = "") -> None:
        super().__init__(run.job, str(run.pk))
        self._backend = backend
        self._name = name or run.execution_name
        if run.is_finished:
            self.end_as(run)

    def _wait(self, timeout: float | None) -> None:
        if commits.awaits_commit(self.run_id):
            message = f"Run {self.run_id}: its request is sent once the transaction that made it has committed."
            hint = "Wait for the result, or cancel the run, after the `atomic` block."
            raise CloudRunJobsError(message, hint=hint)
        super()._wait(timeout)

    @property
    def execution_name(self) -> str:
        """The name of the execution; for a backend that tracks none, the run's id."""
        return self._name or ("" if self._backend.tracks_executions else self.run_id)

    @property
    def metadata(self) -> MockExecution:
        run, ended = JobRun.objects.filter(pk=self.run_id).first(), self.done()
        if run is None:
            return super().metadata
        return MockExecution(
            name=self.execution_name,
            uid=self.run_id,
            job=run.job,
            create_time=run.created_at,
            start_time=run.started_at or run.created_at,
            completion_time=run.finished_at,
            task_count=run.task_count,
            parallelism=run.task_count,
            running_count=0 if ended else run.tasks.filter(status=Status.RUNNING).count(),
            succeeded_count=run.succeeded_count,
            failed_count=run.failed_count,
            cancelled_count=run.cancelled_count,
            retried_count=run.retried_count,
            reconciling=not ended,
        )

    def cancel(self) -> bool:
        """Cancel the run; return False if it had ended. The record is authoritative."""
        run = JobRun.objects.filter(pk=self.run_id).first()
        if run is None or run.is_finished:
            return False
        not_started = Q(status__in=(Status.PENDING, Status.SENT))
        ended = {"finished_at": Now(), "reason": "cancelled"}
        if run.transition(Status.CANCELLED, not_started, **ended):
            TaskRun.objects.filter(run=run.pk, status=Status.PENDING).update(status=Status.CANCELLED, **ended)
        else:
            run.update_if(Q(status=Status.RUNNING, cancel_requested_at=None), cancel_requested_at=Now())
        if self._backend.supports_terminate:
            try:
                self._backend.terminate(run, timeout=self._backend.send_deadline)
            except ServiceError as error:  # The job's heartbeat reads the cancellation from the record.
                run_record_failed.send_robust(JobRun, run=run, error=error)
        return True

    def _poll(self) -> None:
        if self._backend.tracks_executions:
            self._settle()
        super()._poll()

    def _settle(self) -> None:
        """Apply the state of the execution to the record, if the job has not recorded its end."""
        run = JobRun.objects.filter(pk=self.run_id).first()
        if run is not None and run.execution and not run.is_finished:
            with suppress(*TRANSIENT_ERRORS):
                executions.settle(run, self._backend.get_state(run), run.execution)

    def _is_dead(self, run: JobRun) -> bool:
        return False  # `reconcile` submits a silent run again, or queries its execution.
