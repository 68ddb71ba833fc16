"""A clock that can be frozen, advanced and scaled. All timed work in the emulator waits on it."""

from __future__ import annotations

import heapq
import itertools
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from google.protobuf.timestamp_pb2 import Timestamp

MAX_THREADS = 256  # Each delivery takes one until it has its response.
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
END = datetime(9000, 1, 1, tzinfo=UTC)  # Later, the expiry times of resources would be beyond `datetime.max`.
MAX_SCALE = 1e6


def write_timestamp(timestamp: Timestamp, instant: datetime) -> None:
    """Set a protobuf timestamp, ten times as fast as its own `FromDatetime`, several times per task."""
    elapsed = instant - EPOCH
    timestamp.seconds = elapsed.days * 86_400 + elapsed.seconds
    timestamp.nanos = elapsed.microseconds * 1000


@dataclass(order=True, slots=True)
class Timer:
    """An action to run at an instant of the clock; `cancel` drops it."""

    due: float
    order: int
    action: Callable[[], None] | None = field(compare=False)

    def cancel(self) -> None:
        self.action = None


class Clock:
    """Virtual time, which follows real time until it is frozen or scaled.

    A frozen clock moves only by `advance`, which fires due timers in order, each at its own instant and in the
    calling thread: a month of ticks takes only as long as the work they cause.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition(threading.RLock())
        self._advancing = threading.RLock()  # An action may advance the clock too.
        self._timers: list[Timer] = []
        self._order = itertools.count()
        self._scale = 1.0
        self._virtual = time.time()
        self._real = time.monotonic()
        self._stopped = False
        self._pool = ThreadPoolExecutor(MAX_THREADS, "emulator-timer")
        self._thread = threading.Thread(target=self._run, name="emulator-clock", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        with self._changed:
            self._stopped = True
            self._timers.clear()
            self._changed.notify_all()
        if self._thread.is_alive():
            self._thread.join()
        self._pool.shutdown(cancel_futures=True)

    def now(self) -> datetime:
        return EPOCH + timedelta(seconds=self.seconds())

    def seconds(self) -> float:
        with self._changed:
            return self._virtual + (time.monotonic() - self._real) * self._scale

    @property
    def frozen(self) -> bool:
        return self._scale == 0

    def freeze(self, at: datetime | None = None) -> None:
        """Stop the clock at its current instant, or at `at`."""
        if at is not None and not EPOCH <= at < END:
            raise ValueError(f"expected an instant between {EPOCH:%Y} and {END:%Y}, got {at}")
        self._set(0.0, at)

    def scale(self, factor: float) -> None:
        """Run the clock `factor` times as fast as real time."""
        if not 0 < factor <= MAX_SCALE:
            raise ValueError(
                f"expected a factor above 0 and of at most {MAX_SCALE:g}, got {factor}; freeze() stops the clock"
            )
        self._set(factor, None)

    def advance(self, by: timedelta | float) -> None:
        """Move the clock forward by a duration (or seconds) and fire every timer that falls due."""
        seconds = by.total_seconds() if isinstance(by, timedelta) else float(by)
        if not seconds >= 0:
            raise ValueError(f"expected a duration of 0 or more, got {seconds} s: time does not go back")
        with self._advancing:
            end = self.seconds() + seconds
            if end > END.timestamp():
                raise ValueError(f"expected an instant before {END:%Y}, got {seconds:g} s from now")
            while (timer := self._next_due(end)) is not None:
                self._fire(timer)
            self._move_to(end)

    def call_at(self, instant: datetime, action: Callable[[], None]) -> Timer:
        return self._add((instant - EPOCH).total_seconds(), action)

    def call_later(self, seconds: float, action: Callable[[], None]) -> Timer:
        return self._add(self.seconds() + seconds, action)

    def call_soon(self, action: Callable[[], None]) -> None:
        """Run the action in another thread now, even if the clock is frozen."""
        self._submit(Timer(0, 0, action))

    def real_seconds(self, seconds: float) -> float:
        """Convert a virtual duration to real seconds. On a frozen clock the two are equal."""
        return seconds / (self._scale or 1.0)

    def _add(self, due: float, action: Callable[[], None]) -> Timer:
        with self._changed:
            timer = Timer(due, next(self._order), action)
            heapq.heappush(self._timers, timer)
            if self._timers[0] is timer:
                self._changed.notify_all()
            return timer

    def _set(self, scale: float, at: datetime | None) -> None:
        with self._changed:
            self._virtual = self.seconds() if at is None else (at - EPOCH).total_seconds()
            self._real = time.monotonic()
            self._scale = scale
            self._changed.notify_all()

    def _move_to(self, to: float) -> None:
        with self._changed:
            self._virtual = max(to, self.seconds())
            self._real = time.monotonic()
            self._changed.notify_all()

    def _next_due(self, end: float) -> Timer | None:
        with self._changed:
            self._drop_cancelled()
            if not self._timers or self._timers[0].due > end:
                return None
            timer = heapq.heappop(self._timers)
            self._move_to(timer.due)
            return timer

    def _drop_cancelled(self) -> None:
        while self._timers and self._timers[0].action is None:
            heapq.heappop(self._timers)

    def _run(self) -> None:
        while True:
            with self._changed:
                timer = self._wait()
                if self._stopped:
                    return
            if timer is not None:
                self._submit(timer)

    def _wait(self) -> Timer | None:
        self._drop_cancelled()
        if self._stopped:
            return None
        if self.frozen or not self._timers:
            self._changed.wait()
            return None
        remaining = (self._timers[0].due - self.seconds()) / self._scale
        if remaining > 0:
            # A condition cannot wait longer than threading.TIMEOUT_MAX, so wait at most an hour at a time.
            self._changed.wait(min(remaining, 3600))
            return None
        return heapq.heappop(self._timers)

    def _submit(self, timer: Timer) -> None:
        """Fire the timer in another thread; `concurrent.futures` logs exceptions with a traceback."""
        future = self._pool.submit(self._fire, timer)
        future.add_done_callback(lambda done: None if done.cancelled() else done.result())

    @staticmethod
    def _fire(timer: Timer) -> None:
        action, timer.action = timer.action, None
        if action is not None:
            action()
