"""Report progress at each step."""

from __future__ import annotations

import os
import time
from typing import Any

from django.core.management.base import CommandParser

from cloudrun_jobs import CloudRunJobs


class Command(CloudRunJobs):
    help = "Walk so many steps"
    parallelism, overlap = None, "allow"

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("steps", type=int)
        parser.add_argument("--seconds", type=float, default=0.0, help="Of each step.")
        parser.add_argument("--until", help="A file; the last step takes until it is there.")

    def run(self, *args: Any, **options: Any) -> None:
        for step in range(1, options["steps"] + 1):
            self.progress(step, options["steps"], f"step {step}")
            time.sleep(options["seconds"])
        while options["until"] and not os.path.exists(options["until"]):  # noqa: PTH110
            time.sleep(0.02)
