"""An empty job on Celery, without a lock."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandParser

from cloudrun_jobs import CloudRunJobs


class Command(CloudRunJobs):
    parallelism, overlap = None, "allow"

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--number", type=int)
        parser.add_argument("--stamp", action="store_true")

    def run(self, *args: Any, **options: Any) -> None:
        if options["stamp"]:
            from benchmarks.celery_app import write_stamp

            write_stamp()
