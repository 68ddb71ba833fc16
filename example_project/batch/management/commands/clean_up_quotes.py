"""A synchronous batch job: `POST /cloudrun_jobs/run/clean_up_quotes/`, with a dry run."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandError, CommandParser

from batch.jobs import BatchJob
from batch.quotes import SYMBOLS


class Command(BatchJob):
    help = "Delete the quotes of symbols that are no longer listed"
    schedule = "0 9 * * 1-5"
    timeout = 300
    http_options = ("dry_run", "keep")

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--dry-run", action="store_true", help="only count them")
        parser.add_argument("--keep", type=int, default=58, help="symbols that are listed")

    def run(self, *args: Any, dry_run: bool, keep: int, **options: Any) -> dict[str, Any]:
        if keep > len(SYMBOLS):
            raise CommandError(f"--keep: expected at most {len(SYMBOLS)}, got {keep}.")
        count = len(SYMBOLS) - keep
        self.stdout.write(f"{'Would delete' if dry_run else 'Deleted'} the quotes of {count} symbols.")
        return {"status": "done", "count": count}
