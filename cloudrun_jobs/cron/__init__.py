"""Cloud Scheduler's schedules: validation and due times."""

from __future__ import annotations

from cloudrun_jobs.cron.dialect import names_both_days, validate
from cloudrun_jobs.cron.dst import next_dst_conflict
from cloudrun_jobs.cron.times import last_time, next_time

__all__ = ["last_time", "names_both_days", "next_dst_conflict", "next_time", "validate"]
