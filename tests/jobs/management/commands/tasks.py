"""Report the task, then end as the options say."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

from django.core.management.base import CommandError, CommandParser

from cloudrun_jobs import CloudRunJobs


class Command(CloudRunJobs):
    help = "Report the task, then end as the options say"
    tasks = 2
    max_retries = 1

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--fail-task", type=int)
        parser.add_argument("--fail-attempts", type=int, default=2)
        parser.add_argument("--wait-in", type=Path)

    def run(self, *args: Any, **options: Any) -> int:
        defaults = {"INDEX": 0, "ATTEMPT": 0, "COUNT": 1}
        index, attempt, count = (
            int(os.environ.get(f"CLOUD_RUN_TASK_{name}", defaults[name])) for name in defaults
        )
        self.stdout.write(f"task {index} of {count}, attempt {attempt}")
        self.stderr.write(f"a message of task {index}")
        if index == options["fail_task"] and attempt < options["fail_attempts"]:
            raise CommandError("failed on purpose")
        if options["wait_in"]:
            (options["wait_in"] / f"started-{index}").touch()
            while True:
                time.sleep(0.01)
        return index

    def reduce(self, results: list[int]) -> list[int]:
        if "DIE_IN_REDUCE" in os.environ:
            os.kill(os.getpid(), signal.SIGKILL)
        return results
