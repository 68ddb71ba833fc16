"""Cloud Scheduler's schedules: which it accepts, and when they are due."""

from __future__ import annotations

from .clocks import next_disturbance
from .dialect import is_english, names_both_days, validate
from .times import last_time, next_time

__all__ = ["is_english", "last_time", "names_both_days", "next_disturbance", "next_time", "validate"]
