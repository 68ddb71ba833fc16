"""Return the options of the call."""

from __future__ import annotations

import json
import os
from typing import Any

from django.core.management.base import CommandParser

from cloudrun_jobs import CloudRunJobs


class Command(CloudRunJobs):
    help = "Return the options it was given"

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("words", nargs="*")
        parser.add_argument("--partner", type=int)
        parser.add_argument("--note")

    def run(self, *args: Any, **options: Any) -> dict[str, Any]:
        arrived = {name: options[name] for name in ("words", "partner", "note")}
        if "ECHO_TO_STDOUT" in os.environ:
            self.stdout.write(json.dumps(arrived))
        return arrived
