"""Find what is wrong with a project in the cloud, and the command that mends each fault."""

from __future__ import annotations

from cloudrun_jobs.doctor.findings import Finding

__all__ = ["Finding"]
