"""Return this task's share of items."""

from __future__ import annotations

import os
import signal
from typing import Any

from django.core.management.base import CommandParser

from cloudrun_jobs import CloudRunJobs
from cloudrun_jobs.execution.sharding import lists
from tests.jobs.models import Token


class Command(CloudRunJobs):
    help = "Return this task's share of ten items"
    max_retries = 1
    tasks = 3

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("items", choices=["numbers", "rows", "rows, killed", "other numbers"])

    def run(self, *args: Any, **options: Any) -> list[Any]:
        index, attempt = (int(os.environ[f"CLOUD_RUN_TASK_{name}"]) for name in ("INDEX", "ATTEMPT"))
        if options["items"] == "rows, killed" and not attempt:
            # The first attempt of the task that finds the ranges dies before it has written them.
            lists._complete = lambda *args: os.kill(os.getpid(), signal.SIGKILL)
        if "rows" in options["items"]:
            return [str(token.pk) for token in self.shard(Token.objects.all())]
        return list(self.shard(range(12 if index == 2 and "other" in options["items"] else 10)))
