"""Run inside the web service for as long as a file exists."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

from cloudrun_jobs import CloudRunJobs


class Command(CloudRunJobs):
    target = "service"
    timeout = 60

    async def run(self, *args: Any, **options: Any) -> dict[str, int]:
        directory = Path(os.environ["IN_REQUEST_DIRECTORY"])
        with (directory / "journal").open("a") as lines:
            lines.write("started\n")
        steps = 0
        while (directory / "hold").exists():
            steps += 1
            self.progress(steps)
            await asyncio.sleep(0.02)
        return {"processed": 100, "errors": 0}
