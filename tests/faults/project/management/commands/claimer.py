"""A job that claims numbers, and writes each into a journal and into the database."""

from __future__ import annotations

import os
import signal
import time
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

from cloudrun_jobs import CloudRunJobs
from cloudrun_jobs.exceptions import JobInterrupted
from cloudrun_jobs.models import JobRun


class Command(CloudRunJobs):
    max_retries = int(os.environ.get("RETRIES", "0"))

    def add_arguments(self, parser: Any) -> None:
        parser.add_argument("--count", type=int, default=40)
        parser.add_argument("--batch", type=int, default=1)
        parser.add_argument("--lease", type=int, default=60)
        parser.add_argument("--pause-at", type=int, default=-1, help="An item; a file `go` ends the pause.")
        parser.add_argument(
            "--kill-at", type=int, default=-1, help="An item, at which the first attempt is killed."
        )
        parser.add_argument("--ignore-sigterm", action="store_true")

    def run(self, *args: Any, **options: Any) -> dict[str, int]:
        folder = Path(os.environ["JOURNAL"]).parent
        for number in self.claim(range(options["count"]), batch=options["batch"], lease=options["lease"]):
            with self.item(number, atomic=True):
                JobRun.objects.create(command="effect", environment="test", trigger="http", reason=str(number))
                if number == options["kill_at"] and not (folder / "killed").exists():
                    (folder / "killed").touch()
                    os.kill(os.getpid(), signal.SIGKILL)
                if number == options["pause_at"]:
                    (folder / "paused").write_text(str(os.getpid()))
                    _wait_for(folder / "go", ignores=options["ignore_sigterm"])
            with Path(os.environ["JOURNAL"]).open("a") as journal:
                journal.write(f"{number}\n")
        return self.claims._asdict()


def _wait_for(path: Path, *, ignores: bool) -> None:
    while not path.exists():
        with suppress(JobInterrupted) if ignores else nullcontext():
            time.sleep(0.01)
