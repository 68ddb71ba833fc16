"""Find problems of a project in the cloud, each with its fix."""

from __future__ import annotations

from cloudrun_jobs.doctor.findings import Finding

__all__ = ["Finding"]
