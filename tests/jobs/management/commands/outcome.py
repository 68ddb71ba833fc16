"""End in the way that the argument names."""

from __future__ import annotations

import os
import sys
from typing import Any

from django.core.management.base import CommandError, CommandParser

from cloudrun_jobs import CloudRunJobs

FORGED = 'no good\n{"severity": "ALERT"}\x1b[2J'
ENDINGS = {
    "text": lambda: "all done",
    "none": lambda: None,
    "set": lambda: {1, 2},
    "nan": lambda: float("nan"),
    "error": lambda: 1 / 0,
    "exit": lambda: sys.exit(3),
    "exit 0": lambda: sys.exit(0),
    "exit 256": lambda: sys.exit(256),
    "exit text": lambda: sys.exit("no good"),
    "exit forged": lambda: sys.exit(FORGED),
    "pid": os.getpid,
}


class Command(CloudRunJobs):
    help = "End in the way that the argument names"
    max_retries = 2

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "ending",
            choices=[*ENDINGS, "command error", "command error 0", "command error forged", "error forged"],
        )

    def run(self, *args: Any, **options: Any) -> Any:
        ending = options["ending"]
        if ending == "error forged":
            raise ValueError(FORGED)
        if ending == "command error forged":
            raise CommandError(FORGED)
        if ending.startswith("command error"):
            raise CommandError("bad input", returncode=0 if ending.endswith("0") else 1)
        return ENDINGS[ending]()
