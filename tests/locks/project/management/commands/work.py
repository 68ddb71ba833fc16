"""Works for a while under its locks, and writes into the history when it held them."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, ClassVar

from django.core.management import call_command
from django.core.management.base import CommandParser
from django.db import DatabaseError, connection, transaction

from cloudrun_jobs import CloudRunJobs


class Command(CloudRunJobs):
    """The job of the fault tests."""

    help = "Work for some seconds"
    max_retries = 3
    lock_args = ("shop",)
    lock_timeout = 30
    parallelism: ClassVar[int | None] = None

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--shop", default="one")
        parser.add_argument("--seconds", type=float, default=60)
        parser.add_argument("--how", default="plainly")

    def run(self, *args: Any, **options: Any) -> None:
        self.note("begin")
        try:
            getattr(self, options["how"])(options)
        except BaseException as error:
            self.note("end", error=type(error).__name__)
            raise
        self.note("end", error=None)

    def note(self, what: str, **more: object) -> None:
        """Write a line; the monotonic clock is the same for all processes of a machine."""
        assert self._active is not None
        entry = {
            "what": what,
            "at": time.monotonic(),
            "pid": os.getpid(),
            "token": self.lease.token if self._active.leases else None,
            "execution": os.environ.get("CLOUD_RUN_EXECUTION", ""),
            "attempt": os.environ.get("CLOUD_RUN_TASK_ATTEMPT", ""),
            **more,
        }
        with Path(os.environ["WORKER_HISTORY"]).open("a") as history:
            history.write(json.dumps(entry) + "\n")

    def plainly(self, options: dict[str, Any]) -> None:
        """Work in small steps, checking the lease before each, until the time is over or the test ends it."""
        ends, finish = time.monotonic() + options["seconds"], Path(os.environ["WORKER_HISTORY"] + ".finish")
        while time.monotonic() < ends and not finish.exists():
            self.check_lease()
            self.note("work")
            time.sleep(0.02)

    def asleep(self, options: dict[str, Any]) -> None:
        """Never check the lease."""
        time.sleep(options["seconds"])

    def stubbornly(self, options: dict[str, Any]) -> None:
        """Catch every exception."""
        while True:
            with contextlib.suppress(Exception):
                time.sleep(0.01)

    def holding_the_gil(self, options: dict[str, Any]) -> None:
        """Hold the GIL for longer than any lease, and run no signal handler, as a regular expression does."""
        self.note("holds the GIL")
        sum(range(10**12))

    def holding_the_gil_for_seconds(self, options: dict[str, Any]) -> None:
        """Hold the GIL for so many seconds, then check the lease."""
        ctypes.PyDLL(None).sleep(int(options["seconds"]))
        self.check_lease()

    def forking(self, options: dict[str, Any]) -> None:
        """Fork a child that exits."""
        if not (child := os.fork()):
            sys.exit(0)
        self.note("child", code=os.waitpid(child, 0)[1])

    def nested(self, options: dict[str, Any]) -> None:
        """Call this job inside itself."""
        call_command("work", how="asleep", seconds=0, shop=options["shop"])
        self.check_lease()
        self.note("still held")

    def inherited(self, options: dict[str, Any]) -> None:
        """Start this job in a subprocess with the same environment."""
        child = [sys.executable, "-m", "django", "work", f"--shop={options['shop']}", "--seconds=0"]
        done = subprocess.run(child, check=False, capture_output=True, text=True)
        self.note("child", code=done.returncode, output=done.stdout)

    def atomic(self, options: dict[str, Any]) -> None:
        """Work in one transaction, which is rolled back."""
        with contextlib.suppress(ZeroDivisionError), transaction.atomic():
            with contextlib.suppress(DatabaseError), connection.cursor() as cursor:
                cursor.execute("SELECT nothing FROM nowhere")
            self.plainly(options)
            raise ZeroDivisionError

    def fenced(self, options: dict[str, Any]) -> None:
        """Write in fenced transactions; stop the process before one when the test requests it."""
        while True:
            self.note("before the fence")
            if Path(os.environ["WORKER_HISTORY"]).with_suffix(".stop").exists():
                os.kill(os.getpid(), 19)
            with self.lease.transaction(), connection.cursor() as cursor:
                cursor.execute(
                    "INSERT INTO fenced_writes (token, execution) VALUES (%s, %s)",
                    [self.lease.token, os.environ["CLOUD_RUN_EXECUTION"]],
                )
            time.sleep(0.02)
