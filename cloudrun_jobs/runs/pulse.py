"""Tells the record, from a thread of its own, that a job lives and how far it is.

On a connection of its own: what a job writes inside of its transaction nobody sees, and others wait for.
"""

from __future__ import annotations

import threading

from django.db import Error, connections
from django.db.models.functions import Now

from ..models import TaskRun
from . import patience

BEAT = 20.0  # Seconds. Who looks after dead jobs waits for several of these.
PROGRESS = 1.0  # Seconds between two writes of how far it is.


class Pulse:
    """The heartbeat of one attempt, from `start()` to `stop()`."""

    def __init__(self, task: TaskRun) -> None:
        self._task = task
        self._progress: dict[str, object] = {}
        self._news, self._stopped = threading.Event(), threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the thread, except in a transaction, where nobody else sees the row anyway."""
        if not patience.in_transaction():
            self._thread = threading.Thread(target=self._beat, name="cloudrun_jobs pulse", daemon=True)
            self._thread.start()

    def stop(self) -> dict[str, object]:
        """End the thread and return the progress made last, for the row."""
        self._stopped.set()
        self._news.set()
        if self._thread is not None:
            self._thread.join(timeout=PROGRESS)
        return self._progress

    def note(self, done: int, total: int | None, text: str) -> None:
        """Have the thread write how far the job is."""
        self._progress = {"progress_done": done, "progress_total": total, "progress_text": text}
        self._news.set()

    def _beat(self) -> None:
        try:
            while not self._stopped.is_set():
                if self._news.wait(BEAT):
                    self._news.clear()
                    self._stopped.wait(PROGRESS)  # What comes in this time goes into the same write.
                if not self._stopped.is_set():
                    self._write()
        finally:
            connections.close_all()  # This thread's.

    def _write(self) -> None:
        mine = TaskRun.objects.filter(pk=self._task.pk, worker=self._task.worker)
        try:
            mine.update(heartbeat_at=Now(), **self._progress)
        except Error:
            # The next beat comes soon; a record that is silent for long is asked about, not given up.
            connections[patience.alias()].close()
