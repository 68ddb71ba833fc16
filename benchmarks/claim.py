"""Measure `claim()`: python -m benchmarks claim.

- The rate at which 16 processes claim single items on PostgreSQL, against a hand-written `SELECT … FOR UPDATE SKIP
  LOCKED` with as many commits.
- The time per item of a list of 1 000 000 items in chunks of 1000.
- The time of 8 tasks on the emulator for items with Zipf-distributed durations, with `claim()` and with `shard()`,
  against the longest item or an eighth of the sum, whichever is more.
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
from tempfile import TemporaryDirectory
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PROCESSES = 16
LEAST_RATIO = 0.8
MOST_MICROSECONDS = 50.0
MOST_ZIPF_RATIO = 1.3
ZIPF_TASKS, ZIPF_ITEMS, ZIPF_LONGEST = 8, 400, 10.0  # The last one in seconds.


def main(argv: list[str] | None = None) -> int:
    """Print the results; return a positive number if one misses its limit."""
    from tests.servers import sql

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0, help="Duration of each measurement.")
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--zipf-rounds", type=int, default=3)
    options = parser.parse_args(argv)
    server = sql.postgres()
    try:
        place = sql.postgres_settings(server.port)
        run_id = json.loads(subprocess.check_output(_command(), env=_environment(place, "prepare"), cwd=ROOT))
        missed = _report_rates(_rates(place, run_id, options.rounds, options.seconds))
        missed += _report_overhead(_overhead(place, options.items), options.items)
        return missed + _report_zipf(_zipf(place, options.zipf_rounds))
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


def _zipf(place: dict[str, Any], rounds: int) -> dict[str, list[float]]:
    """Return the seconds from the start of the first task's work to the end of the last one's, by side."""
    from google.cloud import run_v2

    from cloudrun_jobs.emulator import Emulator
    from tests.emulator.cloud import PLACE, job

    found: dict[str, list[float]] = {"claim": [], "shard": []}
    with Emulator(grace=1.0) as emulator, TemporaryDirectory() as folder:
        env = {
            "PYTHONPATH": str(ROOT),
            "DJANGO_SETTINGS_MODULE": "tests.faults.project.settings",
            "CRASH_SETTINGS": json.dumps({"database": place, "endpoint": emulator.grpc}),
            "JOURNAL": f"{folder}/journal",
        }
        command = [sys.executable, "-m", "django"]
        declared = job(*command, env=env, task_count=ZIPF_TASKS, parallelism=ZIPF_TASKS)
        jobs = emulator.clients.jobs
        name = jobs.create_job(parent=PLACE, job=declared, job_id="zipf-production").result().name
        for _ in range(rounds):
            for how in random.sample(list(found), len(found)):
                arguments = ["zipf", f"--how={how}", f"--count={ZIPF_ITEMS}", f"--seconds={ZIPF_LONGEST}"]
                overrides = {"container_overrides": [{"args": arguments}]}
                execution = jobs.run_job(run_v2.RunJobRequest(name=name, overrides=overrides)).result(timeout=300)
                short_name = execution.name.rpartition("/")[2]
                times = [json.loads(path.read_text()) for path in Path(folder).glob(f"{short_name}-*.times")]
                assert len(times) == ZIPF_TASKS, execution
                found[how].append(max(end for _, end in times) - min(began for began, _ in times))
    return found


def _report_zipf(found: dict[str, list[float]]) -> int:
    total = sum(ZIPF_LONGEST / number for number in range(1, ZIPF_ITEMS + 1))
    least = max(ZIPF_LONGEST, total / ZIPF_TASKS)
    print(f"\n{ZIPF_ITEMS} items of {total:.1f} s, the longest of {ZIPF_LONGEST:.1f} s, {ZIPF_TASKS} tasks")
    for how, values in found.items():
        print(f"  {median(values):8.2f} s  {median(values) / least:5.2f}  {how}()")
    missed = median(found["claim"]) / least > MOST_ZIPF_RATIO
    print("  MISSED" if missed else f"  limit of claim(): {MOST_ZIPF_RATIO}")
    return int(missed)


def _report_rates(rates: dict[str, list[float]]) -> int:
    ratio = median(ours / theirs for ours, theirs in zip(*rates.values(), strict=True))
    print(f"\nclaims per second of single items, {PROCESSES} processes")
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
