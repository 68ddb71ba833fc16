"""The handle on a run that Celery's workers execute, which follows its record."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.db.models import Q

from cloudrun_jobs.backends.base import Request
from cloudrun_jobs.backends.celery import messages
from cloudrun_jobs.backends.inline import PollingOperation
from cloudrun_jobs.exceptions import ServiceError
from cloudrun_jobs.models import JobRun, Status
from cloudrun_jobs.models.functions import Now
from cloudrun_jobs.operations import MockExecution
from cloudrun_jobs.signals import run_record_failed

if TYPE_CHECKING:
    from cloudrun_jobs.backends.celery import CeleryBackend


class CeleryOperation(PollingOperation):
    """A handle on one run, whose record the workers keep."""

    def __init__(self, run: JobRun, backend: CeleryBackend, name: str) -> None:
        super().__init__(run.job, str(run.pk))
        self._backend = backend
        self._name = name
        if run.is_finished:
            self.end_as(run)

    @property
    def execution_name(self) -> str:
        """The id of the Celery task; for a run with several tasks, their ids begin with it."""
        return self._name

    @property
    def metadata(self) -> MockExecution:
        run, ended = JobRun.objects.filter(pk=self.run_id).first(), self.done()
        execution = super().metadata
        if run is None:
            return execution
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
        """Cancel the run; return False if it had ended. The record decides; a worker that runs it gets SIGTERM."""
        run = JobRun.objects.filter(pk=self.run_id).first()
        if run is None or run.is_finished:
            return False
        not_started = Q(status__in=(Status.PENDING, Status.SENT))
        if not run.transition(Status.CANCELLED, not_started, finished_at=Now(), reason="cancelled"):
            run.update_if(Q(status=Status.RUNNING, cancel_requested_at=None), cancel_requested_at=Now())
        request = Request(job=run.job, argv=(), run_id=self.run_id, tasks=run.task_count)
        try:
            timeout = self._backend.send_deadline
            messages.revoke(self._backend, list(messages.task_ids(request)), timeout=timeout)
        except ServiceError as error:  # The worker's heartbeat reads the cancellation from the record.
            run_record_failed.send_robust(JobRun, run=run, error=error)
        return True

    def _is_dead(self, run: JobRun) -> bool:
        return False  # `reconcile` sends a silent run again.
