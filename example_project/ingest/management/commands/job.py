"""Start the work on one object by its id."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandParser

from cloudrun_jobs import CloudRunJobs


class Command(CloudRunJobs):
    help = "Work on the object with this id"

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--id", type=int, required=True)

    def run(self, *args: Any, id: int, **options: Any) -> dict[str, int]:  # noqa: A002  (the option's name)
        self.stdout.write(f"Working on {id}.")
        return {"id": id}
