"""Find every job command of the installed apps."""

from __future__ import annotations

from cloudrun_jobs.registry.jobs import FoundJobs, find_job, find_job_or_none, find_jobs, find_specs

__all__ = ["FoundJobs", "find_job", "find_job_or_none", "find_jobs", "find_specs"]
