"""Run inside the web service for as long as a file exists."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from django.core.management.base import CommandParser

from cloudrun_jobs import CloudRunJobs


class Command(CloudRunJobs):
    target = "service"
    timeout = 60
    http_options = ("journal", "hold")

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--journal", type=Path)
        parser.add_argument("--hold", type=Path)

    async def run(self, *args: Any, journal: Path, hold: Path | None, **options: Any) -> dict[str, int]:
        with journal.open("a") as lines:
            lines.write("started\n")
        steps = 0
        while hold is not None and hold.exists():  # noqa: ASYNC240  (a test's file)
            steps += 1
            self.progress(steps)
            await asyncio.sleep(0.02)
        return {"processed": 100, "errors": 0}
