"""Compare `claim()` with hand-written SQL, and measure its overhead: python -m benchmarks claim.

Claims of one item per second, of 16 processes on PostgreSQL, against `SELECT … FOR UPDATE SKIP LOCKED` in psycopg
and as many commits; and the time per item of a list of 1 000 000 items in chunks of 1000.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PROCESSES = 16
LEAST_RATIO = 0.8
MOST_MICROSECONDS = 50.0


def main(argv: list[str] | None = None) -> int:
    """Print the results; return a positive number if one misses its limit."""
    from tests.servers import sql

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0, help="Duration of each measurement.")
    parser.add_argument("--items", type=int, default=1_000_000)
    options = parser.parse_args(argv)
    server = sql.postgres()
    try:
        place = sql.postgres_settings(server.port)
        run_id = json.loads(subprocess.check_output(_command(), env=_environment(place, "prepare"), cwd=ROOT))
        missed = _report_rates(_rates(place, run_id, options.rounds, options.seconds))
        return missed + _report_overhead(_overhead(place, options.items), options.items)
    finally:
        server.stop()


def _command() -> list[str]:
    return [sys.executable, "-m", "benchmarks.claim_worker"]


def _environment(place: dict[str, Any], work: str, **values: Any) -> dict[str, str]:
    return {**os.environ, "BENCHMARK": json.dumps({"place": place, "work": work, **values})}


def _rates(place: dict[str, Any], run_id: str, rounds: int, seconds: float) -> dict[str, list[float]]:
    """Return the claims per second of each round, by side."""
    pipe = subprocess.PIPE
    workers = [
        subprocess.Popen(
            _command(),
            env=_environment(place, "serve", run_id=run_id, index=index, count=PROCESSES),
            cwd=ROOT,
            stdin=pipe,
            stdout=pipe,
            text=True,
        )
        for index in range(PROCESSES)
    ]
    rates: dict[str, list[float]] = {"claim()": [], "hand-written": []}
    try:
        for number in range(rounds):
            print(f"round {number + 1}", file=sys.stderr, flush=True)
            for side in random.sample(list(rates), len(rates)):
                rates[side].append(_measure(workers, side, number, seconds) / seconds)
    finally:
        for worker in workers:
            worker.communicate()
    return rates


def _measure(workers: list[subprocess.Popen[str]], side: str, number: int, seconds: float) -> int:
    """Return the number of claims of all workers, which start together once all are ready."""
    for worker in workers:
        _write(worker, {"side": side, "number": number, "seconds": seconds})
    for worker in workers:
        _read(worker)
    at = time.time() + 0.5
    for worker in workers:
        _write(worker, at)
    counts = [_read(worker) for worker in workers]
    assert sum(counts) == len({item for worker in workers for item in _read(worker)}), "an item was claimed twice"
    return sum(counts)


def _write(worker: subprocess.Popen[str], value: Any) -> None:
    assert worker.stdin
    worker.stdin.write(json.dumps(value) + "\n")
    worker.stdin.flush()


def _read(worker: subprocess.Popen[str]) -> Any:
    assert worker.stdout
    return json.loads(worker.stdout.readline())


def _overhead(place: dict[str, Any], items: int) -> dict[str, float]:
    environment = _environment(place, "overhead", index=0, count=1, items=items)
    found: dict[str, float] = json.loads(subprocess.check_output(_command(), env=environment, cwd=ROOT))
    return found


def _report_rates(rates: dict[str, list[float]]) -> int:
    ratio = median(ours / theirs for ours, theirs in zip(*rates.values(), strict=True))
    print(f"\nclaims of one item per second, {PROCESSES} processes")
    for side, values in rates.items():
        print(f"  {median(values):8.0f}  {side}  ({', '.join(f'{value:.0f}' for value in values)})")
    print(f"  ratio {ratio:.2f}{'   MISSED' if ratio < LEAST_RATIO else ''}")
    return int(ratio < LEAST_RATIO)


def _report_overhead(found: dict[str, float], items: int) -> int:
    print(f"\n{items} items in chunks of 1000, microseconds per item")
    for step, seconds in found.items():
        print(f"  {seconds / items * 1e6:8.2f}  {step}")
    total = sum(found.values()) / items * 1e6
    print(f"  {total:8.2f}  sum{'   MISSED' if total > MOST_MICROSECONDS else ''}")
    return int(total > MOST_MICROSECONDS)


if __name__ == "__main__":
    sys.exit(main())
