"""Run one job in its process: record, locks, signals and outcome."""

from __future__ import annotations
