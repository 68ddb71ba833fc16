"""A job that writes the value of its secret option in each way that is masked."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from django.core.management.base import CommandError, CommandParser

from cloudrun_jobs import CloudRunJobs


def group(text: str) -> Exception:
    return ExceptionGroup(text, [ValueError(text)])


ERRORS: dict[str, Callable[[str], BaseException]] = {
    "error": ValueError,
    "group": group,
    "CommandError": CommandError,
    "exit": SystemExit,
}

logger = logging.getLogger("shop")


class Command(CloudRunJobs):
    help = "Leak the token"
    secret_options = ("token",)
    overlap = "allow"
    reduce_partial = True

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--token")
        parser.add_argument("--end", choices=["return", *ERRORS, "item"])
        parser.add_argument("--folder", type=Path, help="`run()` waits until it has the file 'go'.")

    def run(self, *args: Any, token: str, end: str, folder: Path | None, **options: Any) -> Any:
        self.leaked = token
        if folder is not None:
            (folder / "started").touch()
            while not (folder / "go").exists():
                time.sleep(0.02)
        self.stdout.write(f"token {token}")
        self.stderr.write(self.style.ERROR(json.dumps({"token": token})))
        logger.warning("logged %r", token, extra={"token": token})
        self.progress(1, 2, token)
        if end in ERRORS:
            raise ERRORS[end](f"bad {token}")
        if end == "item":
            for each in self.claim([1]):
                with self.item(each):
                    raise ValueError(f"item {each} {token}")
        return {"token": token, token: [token]}

    def reduce(self, results: list[Any]) -> Any:
        return [results, self.leaked]
