"""Medians of interleaved runs, so that a busy machine slows all sides alike."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from statistics import median

Seconds = float


def timed(work: Callable[[], object]) -> Seconds:
    """Return how long one call takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def interleaved(sides: Mapping[str, Callable[[], Seconds]], rounds: int) -> dict[str, Seconds]:
    """Measure every side once a round, in random order, and return the medians."""
    samples: dict[str, list[Seconds]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name in random.sample(list(sides), len(sides)):
            samples[name].append(sides[name]())
    return {name: median(values) for name, values in samples.items()}


def report(title: str, medians: Mapping[str, Seconds], base: str) -> None:
    """Print each side in milliseconds and against the base."""
    print(f"\n{title}")
    for name, seconds in medians.items():
        print(f"  {seconds * 1000:8.2f} ms  {seconds / medians[base]:6.2f}  {name}")
