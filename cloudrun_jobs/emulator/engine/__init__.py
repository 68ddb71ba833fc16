"""The Cloud Run engine: jobs, executions, tasks and operations, with local processes as containers."""

from __future__ import annotations
