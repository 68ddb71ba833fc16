"""Poll the records that streams follow: one thread and one query per interval, however many streams there are."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Mapping
from typing import Any
from uuid import UUID

from django.db import Error, connections

from cloudrun_jobs.process.connections import close
from cloudrun_jobs.process.database_errors import is_transient
from cloudrun_jobs.runs.database import database_alias

POLL_INTERVAL = 0.5  # seconds
STALL_TIMEOUT = 30.0  # seconds without a reply, after which another thread polls on a new connection


class Watch:
    """The newest state of a run, for one stream; None if the run has no record."""

    def __init__(self, run_id: UUID, state: Any) -> None:
        self.run_id = run_id
        self.state = state
        self.wake: Callable[[], object] = lambda: None

    def update(self, state: Any) -> None:
        """Wake the stream if this state is a new one."""
        if state != self.state:
            self.state = state
            self.wake()


class Poller:
    """Reads the states of all watched runs, from the first watch to the end of the last one.

    A thread and not a task: streams of any event loop, and of none, share it and its one database connection.
    """

    def __init__(self, read: Callable[[Collection[UUID]], Mapping[UUID, Any]]) -> None:
        self._read = read
        self._watches: set[Watch] = set()
        self._thread: threading.Thread | None = None
        self._replied_at = 0.0  # By the monotonic clock.
        self._condition = threading.Condition()

    def add(self, watch: Watch) -> None:
        """Keep the watch up to date."""
        with self._condition:
            self._watches.add(watch)
            now = time.monotonic()
            # The connection of a thread that waits for a reply may be dead; the thread ends when it notices.
            is_stalled = now - self._replied_at > STALL_TIMEOUT
            if self._thread is None or not self._thread.is_alive() or is_stalled:
                self._replied_at = now
                self._thread = threading.Thread(target=self._run, name="cloudrun_jobs events", daemon=True)
                self._thread.start()

    def remove(self, watch: Watch) -> None:
        """Forget the watch, which may have been removed before."""
        with self._condition:
            self._watches.discard(watch)
            self._condition.notify_all()

    def _run(self) -> None:
        try:
            while watches := self._next():
                self._poll(watches)
        finally:
            connections.close_all()  # This thread's.

    def _next(self) -> Collection[Watch]:
        """Wait for an interval, and return the watches; none if this thread is to end."""
        with self._condition:
            self._condition.wait_for(lambda: not self._watches, POLL_INTERVAL)
            if self._thread is not threading.current_thread():
                return ()
            if not self._watches:
                self._thread = None
            return set(self._watches)

    def _poll(self, watches: Collection[Watch]) -> None:
        try:
            states = self._read({watch.run_id for watch in watches})
        except Error as error:
            close(connections[database_alias()])
            if not is_transient(error):
                raise
            return
        finally:
            self._replied_at = time.monotonic()
        if self._thread is threading.current_thread():  # If not, the reply is out of date.
            for watch in watches:
                watch.update(states.get(watch.run_id))
