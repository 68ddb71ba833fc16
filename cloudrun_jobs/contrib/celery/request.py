"""Handle a message in the worker's main process, while a process of its pool runs the task."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

from billiard.exceptions import Terminated, TimeLimitExceeded, WorkerLostError
from celery.worker.request import Request
from django.db import connections

from cloudrun_jobs.backends.celery.messages import parse_task_id

logger = logging.getLogger("cloudrun_jobs")

RECORD_LIMIT_SECONDS = 5.0  # The worker does nothing else meanwhile.


class RunRequest(Request):  # type: ignore[misc]  # Celery has no annotations
    """A request that records the death of the process that runs it, and a revocation."""

    def on_failure(self, exc_info: Any, *args: Any, **kwargs: Any) -> Any:
        error = getattr(exc_info.exception, "exc", exc_info.exception)
        if isinstance(error, (WorkerLostError, Terminated, TimeLimitExceeded)):
            self._on_death(error)
        return super().on_failure(exc_info, *args, **kwargs)

    def _on_death(self, error: Exception) -> None:
        """Record the death before the message is requeued: a delivery of a running attempt would be ignored."""
        from cloudrun_jobs.execution.supervision import Death, record_death

        reason = "process_died"
        if isinstance(error, TimeLimitExceeded):
            reason = "timeout"
            with suppress(OSError):  # Celery kills it later.
                os.kill(self.worker_pid, signal.SIGKILL)
        elif self._already_cancelled:
            reason = "interrupted"
        death = Death(f"{self.hostname}/{self.worker_pid}", reason, str(error))
        is_known = self._record(record_death, death)
        if self._already_revoked:
            self._cancel_run()
        elif not isinstance(error, WorkerLostError) and not self._already_cancelled:
            # A hard limit, which Celery acknowledges, or the death of a process that outlived an earlier signal.
            self.reject(requeue=True)
        elif not is_known and self.delivery_info.get("redelivered") and not self._already_cancelled:
            self.acknowledge()  # Its processes die before they claim it. `reconcile` sends it again, later.

    def terminate(self, pool: Any, signal: Any = None) -> None:
        """Cancel the run, also if the revocation comes from Flower or the command line, and end the process."""
        self._cancel_run()
        with suppress(NotImplementedError):  # In a thread, the job ends at its next progress().
            super().terminate(pool, signal)

    def cancel(self, *args: Any, **kwargs: Any) -> None:
        """Interrupt the job because the worker is being shut down."""
        from cloudrun_jobs.execution import termination

        try:
            super().cancel(*args, **kwargs)
        except NotImplementedError:  # The pool has threads of this process.
            termination.request_all()

    def _announce_revoked(self, reason: str, terminated: bool, signum: Any, expired: bool) -> None:
        if not terminated:
            self._cancel_run()
        super()._announce_revoked(reason, terminated, signum, expired)

    def _cancel_run(self) -> None:
        from cloudrun_jobs.execution.supervision import record_revocation

        self._record(lambda run_id, index: record_revocation(run_id))

    def _record(self, work: Callable[..., Any], *args: Any) -> bool:
        """Call `work` with the run's id and the index of the task; return what it returns, False if it fails.

        In a thread: a database without an answer must not block the worker, and needs a connection of its own.
        """
        parsed = parse_task_id(str(self.id))
        if parsed is None:
            return False
        results: list[bool] = []
        thread = threading.Thread(target=partial(_call, work, (*parsed, *args), results), daemon=True)
        thread.start()
        thread.join(RECORD_LIMIT_SECONDS)
        return bool(results and results[0])


def _call(work: Callable[..., Any], args: tuple[Any, ...], results: list[bool]) -> None:
    try:
        results.append(bool(work(*args)))
    except Exception:
        logger.exception("The record of run %s could not be updated by the worker", args[0])
    finally:
        connections.close_all()  # This thread's.
