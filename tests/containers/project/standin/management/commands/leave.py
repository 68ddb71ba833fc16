"""Ends with the exit code of its argument, at once or after SIGTERM."""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType
from typing import Any

from django.core.management.base import CommandParser

from cloudrun_jobs import CloudRunJobs


class Command(CloudRunJobs):
    help = "End with an exit code"

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("code", type=int)
        parser.add_argument("--at-sigterm", action="store_true")

    def run(self, *args: Any, **options: Any) -> None:
        def leave(signum: int, frame: FrameType | None) -> None:
            self.stdout.write("got SIGTERM")
            sys.exit(options["code"])

        if not options["at_sigterm"]:
            sys.exit(options["code"])
        signal.signal(signal.SIGTERM, leave)
        self.stdout.write(f"pid {os.getpid()}")
        signal.pause()
