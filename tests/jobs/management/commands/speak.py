"""A job that writes in every way that is available to a job."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import sys
import threading
from typing import Any

from django.core.management.base import CommandParser

from cloudrun_jobs import CloudRunJobs

logger = logging.getLogger("shop")


class Broken:
    def __repr__(self) -> str:
        raise ValueError("broken")


class Command(CloudRunJobs):
    help = "Write in each way"

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--fail", action="store_true")

    def run(self, *args: Any, **options: Any) -> dict[str, int]:
        print("a print")  # noqa: T201
        self.stdout.write("an info")
        self.stderr.write("an error")
        self.stdout.write(self.style.SUCCESS("a success"))
        self.stdout.write(f"{self.style.WARNING('a warning')} in a text")
        self.stderr.write("a notice", self.style.NOTICE)
        self.stdout.write("joined ", ending="")
        self.stdout.flush()
        self.stdout.write("parts")
        self.stdout.write(f"bytes {os.fsdecode(b'Z' + bytes([0xFC, 0]))}")
        self.stdout.write("long " + "あ" * 200_000)
        self._from_elsewhere()
        self._log()
        self.stdout.write("unfinished", ending="")
        if options["fail"]:
            raise ExceptionGroup("all failed", [ValueError("one"), KeyError("two")])
        return {"processed": 3, "errors": 1}

    def _from_elsewhere(self) -> None:
        thread = threading.Thread(target=self.stdout.write, args=("from a thread",))
        thread.start()
        thread.join()
        for method in ("fork", "spawn"):
            processes: Any = multiprocessing.get_context(method)
            child = processes.Process(target=from_a_child, args=(method,))
            child.start()
            child.join()
        signal.signal(signal.SIGUSR1, lambda *_: self.stdout.write("from a handler"))
        os.kill(os.getpid(), signal.SIGUSR1)

    def _log(self) -> None:
        logger.info(
            "logged %s", "あ", extra={"rows": 3, "ratio": float("nan"), "severity": "ALERT", "who": Broken()}
        )
        logger.error("logged error")
        logger.info("no %d fit", "good")
        try:
            raise ExceptionGroup("several", [ValueError("x\ny")])
        except ExceptionGroup:
            logger.exception("logged exception")


def from_a_child(method: str) -> None:
    Command().stdout.write(f"from a child by {method}")
    sys.stdout.flush()
