"""Write a run's heartbeat and progress from a thread, on a connection of its own.

What the job writes in a transaction of its own is invisible until the commit, and may block other sessions.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from django.db import Error, connections

from cloudrun_jobs import environ
from cloudrun_jobs.execution import lease_watch
from cloudrun_jobs.execution.deadlines import HEARTBEAT_INTERVAL, PROGRESS_INTERVAL
from cloudrun_jobs.execution.termination import Termination
from cloudrun_jobs.models import JobRun, TaskRun
from cloudrun_jobs.models.functions import Now
from cloudrun_jobs.process.connections import close
from cloudrun_jobs.runs import database


class Heartbeat:
    """The heartbeat of one attempt, from `start()` to `stop()`."""

    def __init__(self, task: TaskRun, *, follows_cancellation: bool = False) -> None:
        self._task = task
        self._follows_cancellation = follows_cancellation  # For a run that no service cancels with SIGTERM.
        self._progress: dict[str, object] = {}
        self._has_progress = False
        self._renewals: dict[object, _Renewal] = {}
        self._is_stopped = False
        self._wakeup = threading.Event()
        self.outlasts_task = False  # Set while the process calls `reduce()`: the task itself has ended.
        self._thread: threading.Thread | None = None

    def start(self, termination: Termination, terminate: Callable[[Termination], None]) -> None:
        """Start the thread, except in a transaction, which hides the row from other sessions anyway.

        The thread calls `terminate` if the job goes on for too long after SIGTERM.
        """
        if not database.in_transaction():
            work = (termination, terminate)
            self._thread = threading.Thread(target=self._run, args=work, name="cloudrun_jobs", daemon=True)
            self._thread.start()

    def stop(self) -> dict[str, object]:
        """Stop the thread and return the latest progress, as values of the row."""
        self._is_stopped = True
        self._wakeup.set()
        if self._thread is not None:
            self._thread.join(timeout=PROGRESS_INTERVAL)
        return self._progress

    def note(self, done: int, total: int | None, text: str) -> None:
        """Have the thread write the progress of the task."""
        if self.outlasts_task:
            return
        self._progress = {"progress_done": done, "progress_total": total, "progress_text": text}
        self._has_progress = True

    def renew(self, key: object, interval: float, work: Callable[[], object]) -> None:
        """Have the thread call `work()` every `interval` seconds, until `forget(key)`.

        `work` writes to the database of the records. A database error is ignored, because `work` is called again.
        """
        self._renewals = {**self._renewals, key: _Renewal(interval, work)}
        self._wakeup.set()  # The thread may be waiting for longer than the interval.

    def forget(self, key: object) -> None:
        """Remove what `renew()` registered under this key. A call may still be in progress."""
        self._renewals = {other: renewal for other, renewal in self._renewals.items() if other != key}

    def _run(self, termination: Termination, terminate: Callable[[Termination], None]) -> None:
        written, has_saved = time.monotonic(), False
        try:
            # The thread polls: a signal handler must not wake it, but may set an attribute.
            while not self._wait(termination):
                if termination.is_overdue():
                    terminate(termination)
                if environ.in_pool_process() and termination.in_main_thread and termination.is_due():
                    lease_watch.signal_main_thread()  # The worker's own signal may have been lost.
                now = time.monotonic()
                # SIGTERM triggers one more renewal, because the process may be killed soon.
                is_last, has_saved = termination.is_requested() and not has_saved, termination.is_requested()
                for renewal in self._renewals.values():
                    if is_last or now >= renewal.due_at:
                        renewal.due_at = now + renewal.interval
                        _ignoring_errors(renewal.work)
                if self._has_progress or now - written >= HEARTBEAT_INTERVAL:
                    is_written, written = self._write(), now
                    if self._follows_cancellation and (self._is_cancelled() or self._is_superseded(is_written)):
                        termination.request()
        finally:
            connections.close_all()  # This thread's.

    def _wait(self, termination: Termination) -> bool:
        """Wait until there may be something to do; return True once the thread is to stop."""
        intervals = (renewal.interval / 2 for renewal in self._renewals.values())
        self._wakeup.wait(min(PROGRESS_INTERVAL, termination.cleanup_seconds_left(), *intervals))
        self._wakeup.clear()
        return self._is_stopped

    def _write(self) -> bool:
        """Write the heartbeat and the progress; return True if the row was updated."""
        self._has_progress = False
        rows = TaskRun.objects.filter(pk=self._task.pk, worker=self._task.worker)
        if not self.outlasts_task:
            rows = rows.filter(finished_at=None)  # Not after the end: `stop()` does not wait forever.
        # The next heartbeat follows soon; `reconcile` tolerates several missing ones.
        return bool(_ignoring_errors(lambda: rows.update(heartbeat_at=Now(), **self._progress)))

    def _is_superseded(self, is_written: bool) -> bool:
        """Return True if another attempt has taken over: this process was stopped for too long."""
        if is_written:
            return False
        others = TaskRun.objects.filter(pk=self._task.pk).exclude(worker=self._task.worker)
        return bool(_ignoring_errors(others.exists))

    def _is_cancelled(self) -> bool:
        run = JobRun.objects.filter(pk=self._task.run_id)
        return bool(_ignoring_errors(run.exclude(cancel_requested_at=None).exists))


class _Renewal:
    """Work that the thread repeats at an interval."""

    def __init__(self, interval: float, work: Callable[[], object]) -> None:
        self.interval, self.work = interval, work
        self.due_at = time.monotonic() + interval


def _ignoring_errors(work: Callable[[], object]) -> object:
    """Return the result of `work`, or None after a database error: the work is repeated soon."""
    try:
        return work()
    except Error:
        close(connections[database.database_alias()])
        return None
