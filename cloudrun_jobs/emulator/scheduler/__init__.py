"""Cloud Scheduler: scheduler jobs and deliveries to their targets."""

from __future__ import annotations
