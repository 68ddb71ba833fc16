"""What Cloud Scheduler does: jobs with a schedule, and deliveries to their targets."""

from __future__ import annotations
