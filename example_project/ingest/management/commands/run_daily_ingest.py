"""Ingest a market's daily data in chunks, without a network: the requests are counted, not sent."""

from __future__ import annotations

import json
from typing import Any

from django.core.management.base import CommandError, CommandParser

from cloudrun_jobs import CloudRunJobs

MARKETS = {"TSE_PRIME": range(1301, 2941), "TSE_GROWTH": range(3000, 3600)}  # A stand-in for listed symbols.


class Command(CloudRunJobs):
    help = "Ingest a market's data of the last days"
    timeout = 3600
    queue = "ingest"
    http_options = ("intervals", "market", "chunk_size")

    def add_arguments(self, parser: CommandParser) -> None:
        # With json.loads, the option is an object in a request's body, and JSON text on the command line.
        parser.add_argument("--intervals", type=json.loads, default={"1d": 1}, help='days by interval: {"1m": 1}')
        parser.add_argument("--market", choices=MARKETS, default="TSE_PRIME")
        parser.add_argument("--chunk-size", type=int, default=500, help="symbols per request")

    def run(
        self, *args: Any, intervals: dict[str, int], market: str, chunk_size: int, **options: Any
    ) -> dict[str, Any]:
        if not isinstance(intervals, dict) or not all(isinstance(days, int) for days in intervals.values()):
            raise CommandError(f'--intervals: expected days by interval, such as {{"1m": 1}}, got {intervals!r}.')
        if chunk_size < 1:
            raise CommandError(f"--chunk-size: expected at least 1, got {chunk_size}.")
        symbols = MARKETS[market]
        chunks = [symbols[start : start + chunk_size] for start in range(0, len(symbols), chunk_size)]
        requests = [(interval, chunk) for interval in intervals for chunk in chunks]
        processed = 0
        for number, (interval, chunk) in enumerate(requests, start=1):
            self.progress(number, len(requests), f"{interval} of {len(chunk)} symbols from {chunk[0]}")
            processed += len(chunk) * intervals[interval]
        return {"market": market, "requests": len(requests), "processed": processed, "errors": 0}
