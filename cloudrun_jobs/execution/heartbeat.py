"""Tells the record, from a thread of its own, that a job lives and how far it is.

On a connection of its own: what a job writes inside of its transaction nobody sees, and others wait for.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from django.db import Error, connections

from cloudrun_jobs import environ
from cloudrun_jobs.execution.interrupts import Interrupt
from cloudrun_jobs.models import TaskRun
from cloudrun_jobs.models.functions import Now
from cloudrun_jobs.runs import database

HEARTBEAT_INTERVAL = 20.0  # Seconds. Who looks after dead jobs waits for several of these.
PROGRESS = 1.0  # Seconds between two writes of how far it is.
CLEANING_UP = 8.0  # Seconds that a job has after SIGTERM. Cloud Run sends SIGKILL after ten.


class Heartbeat:
    """The heartbeat of one attempt, from `start()` to `stop()`."""

    def __init__(self, task: TaskRun) -> None:
        self._task = task
        self._progress: dict[str, object] = {}
        self._is_new = False
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, interrupt: Interrupt, terminate: Callable[[Interrupt], None]) -> None:
        """Start the thread, except in a transaction, where nobody else sees the row anyway.

        `terminate` is called in it if a job in a container goes on long after SIGTERM.
        """
        if not database.in_transaction():
            work = (interrupt, terminate)
            self._thread = threading.Thread(target=self._beat, args=work, name="cloudrun_jobs", daemon=True)
            self._thread.start()

    def stop(self) -> dict[str, object]:
        """End the thread and return the progress made last, for the row."""
        self._stopped.set()
        if self._thread is not None:
            self._thread.join(timeout=PROGRESS)
        return self._progress

    def note(self, done: int, total: int | None, text: str) -> None:
        """Have the thread write how far the job is."""
        self._progress = {"progress_done": done, "progress_total": total, "progress_text": text}
        self._is_new = True

    def _beat(self, interrupt: Interrupt, terminate: Callable[[Interrupt], None]) -> None:
        written = time.monotonic()
        try:
            # It looks around every second: the handler of a signal must not wake a thread, but may leave a note.
            while not self._stopped.wait(PROGRESS):
                now = time.monotonic()
                if environ.in_container() and now - (interrupt.terminated_at or now) > CLEANING_UP:
                    terminate(interrupt)
                if self._is_new or now - written >= HEARTBEAT_INTERVAL:
                    self._write()
                    written = now
        finally:
            connections.close_all()  # This thread's.

    def _write(self) -> None:
        self._is_new = False
        # Not once it has ended: `stop()` does not wait for ever, and this would come after the end.
        mine = TaskRun.objects.filter(pk=self._task.pk, worker=self._task.worker, finished_at=None)
        try:
            mine.update(heartbeat_at=Now(), **self._progress)
        except Error:
            # The next beat comes soon; a record that is silent for long is asked about, not given up.
            connections[database.database_alias()].close()
