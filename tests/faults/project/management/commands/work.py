"""A job that writes to a journal, and can be killed at each step."""

from __future__ import annotations

import os
import time
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

from cloudrun_jobs import CloudRunJobs
from cloudrun_jobs.exceptions import JobInterrupted
from cloudrun_jobs.execution.attempt import Attempt
from cloudrun_jobs.execution.outcome import Outcome
from tests.faults.project import death

record = Attempt._record


def _recorded(self: Attempt, outcome: Outcome, progress: dict[str, object]) -> None:
    death.here("after run()")
    record(self, outcome, progress)
    death.here("after the outcome")


Attempt._record = _recorded  # type: ignore[method-assign]


class Command(CloudRunJobs):
    schedule = "0 * * * *"
    max_retries = int(os.environ.get("RETRIES", "0"))
    timeout = int(os.environ.get("TIMEOUT", "600"))
    tasks = task_parallelism = int(os.environ.get("TASKS_AT_ONCE", "1"))

    def add_arguments(self, parser: Any) -> None:
        parser.add_argument("--number", type=int, default=0)
        parser.add_argument("--wait-for", default="")
        parser.add_argument("--ignore-sigterm", action="store_true")

    def run_from_argv(self, argv: list[str]) -> None:
        death.here("before the claim")
        super().run_from_argv(argv)

    def get_lock_key(self, **options: Any) -> Any:
        death.here("after the claim")
        return super().get_lock_key(**options)

    def run(self, *args: Any, **options: Any) -> dict[str, int]:
        death.here("in run()")
        index = os.environ["CLOUD_RUN_TASK_INDEX"]
        if index in os.environ.get("FAILING", "").split() and not Path(os.environ["MENDED"]).exists():
            raise ValueError(f"task {index} fails")
        _write(f"{options['number']} {os.environ['CLOUD_RUN_EXECUTION']}")
        while options["wait_for"] and not Path(options["wait_for"]).exists():
            with suppress(JobInterrupted) if options["ignore_sigterm"] else nullcontext():
                time.sleep(0.01)
        _write("over")
        return {"number": options["number"]}


def _reduce(self: Command, results: list[Any]) -> list[Any]:
    death.here("in reduce()")
    _write("reduced")
    return results


if "REDUCES" in os.environ:
    Command.reduce = _reduce  # type: ignore[attr-defined]


def _write(line: str) -> None:
    with Path(os.environ["JOURNAL"]).open("a") as journal:
        journal.write(f"{line}\n")
