"""Prints what arrived in the process."""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from django.core.management.base import CommandParser

from cloudrun_jobs import CloudRunJobs


class Command(CloudRunJobs):
    help = "Print the arguments, the process id and the user id as JSON"

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("words", nargs="*")
        parser.add_argument("--note")

    def run(self, *args: Any, **options: Any) -> None:
        arrived = {"arguments": sys.argv[2:], "words": options["words"], "note": options["note"]}
        self.stdout.write(json.dumps({**arrived, "pid": os.getpid(), "uid": os.getuid()}))
