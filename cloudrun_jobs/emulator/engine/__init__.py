"""What Cloud Run does: jobs, executions, tasks and operations, with local processes for containers."""

from __future__ import annotations
