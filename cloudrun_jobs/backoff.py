"""The one back-off loop: attempts with growing, jittered pauses between them."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

T = TypeVar("T")


def attempts(
    seconds: float | None,
    *,
    initial: float,
    maximum: float,
    factor: float = 2.0,
    sleep: Callable[[float], object] = time.sleep,
) -> Iterator[float]:
    """Yield the seconds that are left, at once and after each pause; the last attempt is at the deadline.

    A pause is 50 to 100 % of a delay that grows from `initial` to `maximum` seconds. `seconds` None: forever.
    """
    deadline, delay = time.monotonic() + (math.inf if seconds is None else seconds), initial
    while True:
        yield max(0.0, deadline - time.monotonic())
        left = deadline - time.monotonic()
        if left <= 0:
            return
        sleep(min(left, delay * random.uniform(0.5, 1.0)))  # noqa: S311  (jitter)
        delay = min(delay * factor, maximum)


def retry(
    step: Callable[[float], T], on: tuple[type[Exception], ...], seconds: float, *, initial: float, maximum: float
) -> T:
    """Call `step` with the seconds that are left until it returns; raise its last error at the deadline."""
    for left in attempts(seconds, initial=initial, maximum=maximum):
        try:
            return step(left)
        except on as error:
            failure = error
    raise failure
