"""A job whose items take very different times; `benchmarks.claim` measures it."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

from cloudrun_jobs import CloudRunJobs


class Command(CloudRunJobs):
    parallelism, overlap = None, "allow"

    def add_arguments(self, parser: Any) -> None:
        parser.add_argument("--how", choices=["claim", "shard"])
        parser.add_argument("--count", type=int)
        parser.add_argument(
            "--seconds", type=float, help="Duration of the first item; item n takes an n-th of it."
        )

    def run(self, *args: Any, **options: Any) -> None:
        folder, task = Path(os.environ["JOURNAL"]).parent, os.environ["CLOUD_RUN_TASK_INDEX"]
        tasks, execution = int(os.environ["CLOUD_RUN_TASK_COUNT"]), os.environ["CLOUD_RUN_EXECUTION"]
        (folder / f"{execution}-{task}.ready").touch()
        while len(list(folder.glob(f"{execution}-*.ready"))) < tasks:
            time.sleep(0.01)
        began = time.time()
        items = range(1, options["count"] + 1)
        for number in self.claim(items) if options["how"] == "claim" else self.shard(items):
            time.sleep(options["seconds"] / number)
        times = json.dumps([began, time.time()])
        (folder / f"{execution}-{task}.times").write_text(times)
