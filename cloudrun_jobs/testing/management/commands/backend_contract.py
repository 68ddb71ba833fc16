"""The job that `cloudrun_jobs.testing.BackendContract` runs."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from django.core.management.base import CommandParser

from cloudrun_jobs import CloudRunJobs, environ

WAIT_SECONDS = 30.0  # In which a cancelled run has to be interrupted.
VARIABLE = "BACKEND_CONTRACT"


class Command(CloudRunJobs):
    help = "Do what a test of a backend needs"
    parallelism, overlap = None, "allow"
    max_retries = 0
    requires_system_checks = ()

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--value", action="append", help="Returned.")
        parser.add_argument("--ending", choices=["return", "raise", "wait"], default="return")
        parser.add_argument("--log", type=Path, help="A file that gets a line for each call of run().")

    def run(self, *args: Any, **options: Any) -> dict[str, Any]:
        if options["log"]:
            with options["log"].open("a") as log:
                log.write(f"{self.run_id}\n")
        if options["ending"] == "raise":
            raise ValueError("raised by the job")
        if options["ending"] == "wait":
            self._wait_for_interrupt()
        task = environ.current_task()
        return {
            "value": options["value"],
            "variable": os.environ.get(VARIABLE),
            "index": task.index if task else 0,
        }

    def _wait_for_interrupt(self) -> None:
        """Report progress until that raises an error, because the run has been cancelled."""
        deadline, step = time.monotonic() + WAIT_SECONDS, 0
        while time.monotonic() < deadline:
            self.progress(step := step + 1)
            time.sleep(0.02)
