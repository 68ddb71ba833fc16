"""Compare the cost of a lock with redis-py's own in the same run: python -m benchmarks.locks.

Ratios to redis-py's `Lock`; medians of interleaved rounds. Servers are started for it, as in the tests.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
CONTENDERS = 16
SYSTEMS = ("redis-py", "redis", "postgres", "mariadb")
LIMITS = {"redis": (1.5, 1.0), "postgres": (4.0, 0.7)}  # p50 at most, refused tries per second at least.


def main(argv: list[str] | None = None) -> int:
    """Run the rounds and print the ratios; return 1 if one misses its limit."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=1.0, help="Of each measurement.")
    options = parser.parse_args(argv)
    servers, places = _start()
    try:
        rounds = [_round(places, options.seconds, number) for number in range(options.rounds)]
        cost = _cost_of_a_job(places)
    finally:
        for server in servers:
            server.stop()
    return _report(rounds, cost)


def _start() -> tuple[list[Any], dict[str, Any]]:
    from tests.servers import redis, sql

    servers = [redis.start(redis.redis_program()), sql.postgres(), sql.mariadb()]
    places = {
        "redis": redis.url(servers[0]),
        "postgres": sql.postgres_settings(servers[1].port),
        "mariadb": sql.mariadb_settings(servers[2].port),
    }
    _worker(places, "migrate", "postgres", 0)
    _worker(places, "migrate", "mariadb", 0)
    return servers, places


def _round(places: dict[str, Any], seconds: float, number: int) -> dict[str, dict[str, float]]:
    print(f"round {number + 1}", file=sys.stderr, flush=True)  # A round takes most of a minute.
    found = {}
    for system in random.sample(SYSTEMS, len(SYSTEMS)):
        alone = _worker(places, "cycle", system, seconds)
        together = _workers(places, "contend", system, seconds)
        found[system] = {
            "p50": alone["p50"],
            "floor": _worker(places, "floor", system, seconds)["p50"],
            "tries": sum(worker["tries"] for worker in together),
            "overlaps": _overlaps(together),
        }
    return found


def _overlaps(workers: list[dict[str, Any]]) -> int:
    held = sorted(tuple(interval) for worker in workers for interval in worker["held"])
    return sum(later[0] < earlier[1] for earlier, later in itertools.pairwise(held))


def _worker(places: dict[str, Any], work: str, system: str, seconds: float) -> Any:
    return _finish(_begin(places, work, system, seconds))


def _workers(places: dict[str, Any], work: str, system: str, seconds: float) -> list[Any]:
    workers = [_begin(places, work, system, seconds) for _ in range(CONTENDERS)]
    for worker in workers:
        assert worker.stdout
        worker.stdout.readline()  # It is connected.
    at = time.time() + 0.5  # All begin together.
    for worker in workers:
        _send_start_time(worker, at)
    return [_finish(worker) for worker in workers]


def _begin(places: dict[str, Any], work: str, system: str, seconds: float) -> subprocess.Popen[str]:
    arguments = json.dumps({"places": places, "work": work, "system": system, "seconds": seconds})
    command = [sys.executable, "-m", "benchmarks.locks_worker"]
    environment, pipe = {**os.environ, "BENCHMARK": arguments}, subprocess.PIPE
    return subprocess.Popen(command, env=environment, cwd=ROOT, stdin=pipe, stdout=pipe, text=True)


def _send_start_time(worker: subprocess.Popen[str], at: float) -> None:
    assert worker.stdin
    worker.stdin.write(f"{at}\n")
    worker.stdin.flush()


def _finish(process: subprocess.Popen[str]) -> Any:
    output, _ = process.communicate(timeout=300)
    if process.returncode:
        sys.exit(f"A worker failed with status {process.returncode}.")
    return json.loads(output)


def _cost_of_a_job(places: dict[str, Any]) -> dict[str, Any]:
    return {system: _worker(places, "job", system, 0) for system in ("redis", "postgres")}


def _report(rounds: list[dict[str, dict[str, float]]], cost: dict[str, Any]) -> int:
    def median(system: str, what: str) -> float:
        return statistics.median(found[system][what] for found in rounds)

    def ratio(system: str, what: str) -> float:
        return statistics.median(found[system][what] / found["redis-py"][what] for found in rounds)

    missed = 0
    print(f"{len(rounds)} interleaved rounds; ratios to redis-py's Lock, medians")
    print(f"{'':10}  acquire+release p50   two requests   refused tries/s of {CONTENDERS}   overlaps")
    for system in SYSTEMS:
        most, least = LIMITS.get(system, (float("inf"), 0.0))
        p50, tries = ratio(system, "p50"), ratio(system, "tries")
        overlaps = sum(found[system]["overlaps"] for found in rounds)
        misses = p50 > most or tries < least or (overlaps > 0 and system != "redis-py")
        missed += misses
        absolute = (
            f"{median(system, 'p50') * 1e6:6.0f} us x{p50:5.2f} {median(system, 'floor') * 1e6:11.0f} us   "
            f"{median(system, 'tries'):8.0f} x{tries:5.2f}"
        )
        print(f"{system:10}  {absolute}   {overlaps:.0f}{'   MISSED' if misses else ''}")
    for system, found in cost.items():
        print(
            f"A job with its locks in {system}: {found['with']:.1f} ms, without: {found['without']:.1f} ms, "
            f"{found['operations']} operations of the lock server"
        )
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main())
