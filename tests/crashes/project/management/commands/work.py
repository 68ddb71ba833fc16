"""A job that leaves a line in a journal, and can be killed around it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from cloudrun_jobs import CloudRunJobs
from cloudrun_jobs.models import JobRun
from cloudrun_jobs.runs.attempts import Attempt
from tests.crashes.project import death

record = Attempt._record


def _recorded(attempt: Attempt, *args: Any) -> None:
    death.here("after run()")
    record(attempt, *args)
    death.here("after the outcome")


Attempt._record = _recorded


class Command(CloudRunJobs):
    max_retries = int(os.environ.get("RETRIES", "0"))

    def add_arguments(self, parser: Any) -> None:
        parser.add_argument("--number", type=int, default=0)
        parser.add_argument("--wait-for", default="")

    def execute(self, *args: Any, **options: Any) -> Any:
        death.here("before the claim")
        return super().execute(*args, **options)

    def get_lock_key(self, **options: Any) -> Any:
        death.here("after the claim")
        return super().get_lock_key(**options)

    def run(self, *args: Any, **options: Any) -> dict[str, int]:
        death.here("in run()")
        _write(f"{options['number']} {JobRun.objects.count() and os.environ['CLOUD_RUN_EXECUTION']}")
        while options["wait_for"] and not Path(options["wait_for"]).exists():
            self.check_lease()
        return {"number": options["number"]}


def _write(line: str) -> None:
    with Path(os.environ["JOURNAL"]).open("a") as journal:
        journal.write(f"{line}\n")
