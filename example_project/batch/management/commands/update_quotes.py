"""An asynchronous batch job: `POST /cloudrun_jobs/run/update_quotes/`."""

from __future__ import annotations

from functools import partial
from typing import Any

from batch.jobs import BatchJob
from batch.quotes import SYMBOLS, Source, SourceBusy, with_retries

TEST_SYMBOLS = 5


class Command(BatchJob):
    help = "Update the quotes of all symbols"
    schedule = "*/30 * * * *"
    timeout = 900
    test_mode = False

    async def run(self, *args: Any, **options: Any) -> dict[str, int]:
        source, errors = Source(), 0
        symbols = SYMBOLS[:TEST_SYMBOLS] if self.test_mode else SYMBOLS
        for number, symbol in enumerate(symbols, start=1):
            self.progress(number, len(symbols), symbol)
            try:
                await with_retries(partial(source.fetch, symbol))
            except SourceBusy:
                errors += 1
        return {"processed": len(symbols) - errors, "errors": errors}
