"""Shut down a connection whose server does not reply in time: PostgreSQL's drivers would wait forever.

A server-side timeout does not help if the network or a proxy loses the reply and keeps the connection open.
"""

from __future__ import annotations

import math
import os
import socket
import time
from contextlib import suppress
from typing import Any

from cloudrun_jobs.locks.timer import timer


class Watchdog:
    """Watches one connection of a driver, from `start()` to `stop()`."""

    def __init__(self, driver: Any) -> None:
        self._socket: socket.socket | None = None
        self._deadline = math.inf
        # Neither PyMySQL's nor SQLite's connection has fileno().
        if hasattr(source := getattr(driver, "_sock", driver), "fileno"):
            # A duplicate: the driver may close its own descriptor at any time, and the number may be reused.
            self._socket = socket.socket(fileno=os.dup(source.fileno()))

    def __del__(self) -> None:
        if self._socket:
            self._socket.close()

    def start(self, seconds: float) -> None:
        if self._socket:
            self._deadline = time.monotonic() + seconds
            timer.watch(self)

    def stop(self) -> None:
        timer.unwatch(self)

    def next_deadline(self) -> float:
        return self._deadline

    def on_deadline(self) -> None:
        """Make the read that waits for the reply fail."""
        self._deadline = math.inf
        with suppress(OSError):
            if self._socket:
                self._socket.shutdown(socket.SHUT_RDWR)
