"""Prepare log records before google-cloud-logging's handler reads them."""

from __future__ import annotations

from typing import Any

from google.cloud.logging_v2.handlers import StructuredLogHandler as BaseHandler

from cloudrun_jobs.logs.context import GoogleFilter


class StructuredLogHandler(BaseHandler):
    """google-cloud-logging's handler, with the job's labels, and safe for any `extra`."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)  # type: ignore[no-untyped-call]
        self.filters.insert(0, GoogleFilter())

    def emit_instrumentation_info(self) -> None:
        """Write nothing: the library's first record names its version, and is an empty entry of the job."""
