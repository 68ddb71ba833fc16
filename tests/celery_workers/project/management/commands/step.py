"""A job that writes to a journal, and behaves as its options say."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

from cloudrun_jobs import CloudRunJobs
from cloudrun_jobs.exceptions import JobInterrupted


class Command(CloudRunJobs):
    max_retries = 1
    parallelism = None

    def add_arguments(self, parser: Any) -> None:
        parser.add_argument("--seconds", type=float, default=0.0)
        parser.add_argument("--until", default="", help="run until this file exists")
        parser.add_argument("--failures", type=int, default=0, help="the number of attempts that fail")
        parser.add_argument("--deaths", type=int, default=0, help="the number of attempts that kill their process")
        parser.add_argument("--cleanup", type=float, default=0.0, help="seconds of clean-up after an interruption")
        parser.add_argument("--hang", action="store_true", help="let no handler run")
        parser.add_argument("--progress", action="store_true")

    def run(self, *args: Any, **options: Any) -> str:
        attempt = self.journal("begin")
        if attempt <= options["deaths"]:
            os.kill(os.getpid(), signal.SIGKILL)
        if attempt <= options["failures"]:
            raise ValueError(f"attempt {attempt} fails")
        if options["hang"] and attempt == 1:
            sum(range(10**15))
        try:
            self._work(**options)
        except JobInterrupted as error:
            self.journal(f"interrupted: {error.reason}")
            time.sleep(options["cleanup"])
            self.journal("cleaned")
            raise
        self.journal("end")
        return f"attempt {attempt}"

    def _work(self, *, until: str, seconds: float, progress: bool, **options: Any) -> None:
        ends_at = time.monotonic() + seconds
        while time.monotonic() < ends_at or (until and not Path(until).exists()):
            time.sleep(0.02)
            if progress:
                self.progress(1)

    def journal(self, what: str) -> int:
        """Write a line; return how many attempts of the run have begun."""
        index = os.environ.get("CLOUD_RUN_TASK_INDEX", "0")
        run = f"{self.run_id}[{index}]"
        path = Path(os.environ["JOURNAL"])
        with path.open("a") as journal:
            journal.write(f"{run} {os.getpid()} {what}\n")
        return sum(line.startswith(run) and line.endswith("begin") for line in path.read_text().splitlines())
