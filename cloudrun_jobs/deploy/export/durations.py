"""Durations as these formats write them."""

from __future__ import annotations

from datetime import timedelta


def seconds(duration: timedelta) -> str:
    """Return "600s", or "0.5s"."""
    text = f"{duration.total_seconds():f}"
    return f"{text.rstrip('0').rstrip('.')}s"
