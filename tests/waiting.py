"""Waiting in tests: for a condition, with a deadline, never for a time."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

Value = TypeVar("Value")


def wait_for(probe: Callable[[], Value], seconds: float = 30) -> Value:
    """Ask `probe` again and again until what it returns is true, and return that."""
    deadline = time.monotonic() + seconds
    while not (value := probe()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"{probe} was not true within {seconds} seconds.")
        time.sleep(0.02)
    return value
