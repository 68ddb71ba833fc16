"""Measure the run records: `delay()` against django-tasks-google's `enqueue()`, and lists of a million runs.

Both send to the same emulator and write to the same PostgreSQL, from separate processes, in turn.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.secured import secured

ROOT = Path(__file__).resolve().parent.parent
RIVAL = "django-tasks-google==0.6.0"  # Needs Django 6.1 and Python 3.12.
ROUNDS, CALLS = 7, 150
SIZES = (1_000, 1_000_000)


def main() -> None:
    from tests.servers import sql

    postgres = sql.postgres()
    try:
        os.environ["BENCHMARK_DATABASES"] = json.dumps(_databases(sql.postgres_settings(postgres.port)))
        with _emulator() as endpoint, TemporaryDirectory() as directory:
            os.environ["BENCHMARK_ENDPOINT"] = endpoint
            rival = _rival(Path(directory))
            _worker("prepare")
            _run(rival, ROOT / "benchmarks/runs_rival.py", "0")
            _against_the_rival(rival, "without TLS or credentials")
            with secured(endpoint) as environment:
                os.environ |= environment
                _against_the_rival(rival, "with TLS and a token")
        _worker("count")
        _worker("read")
    finally:
        postgres.stop()


def _databases(settings: dict[str, Any]) -> dict[str, Any]:
    """Make a database for each use."""
    import psycopg

    names = ["default", "rival", *(f"runs_{size}" for size in SIZES)]
    with psycopg.connect(f"host=127.0.0.1 port={settings['PORT']} user=postgres", autocommit=True) as connection:
        for name in names:
            connection.execute(f'CREATE DATABASE "{name}"')
    return {name: {**settings, "NAME": name} for name in names}


@contextmanager
def _emulator() -> Iterator[str]:
    command = [sys.executable, "-m", "cloudrun_jobs.emulator", "--port=0", "--grpc-port=0", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            yield json.loads(server.stdout.readline())["grpc"]
        finally:
            server.terminate()


def _rival(directory: Path) -> Path:
    """Install the rival in an environment of its own, and return its Python."""
    subprocess.run([sys.executable, "-m", "venv", directory], check=True)
    python = directory / "bin" / "python"
    wanted = [RIVAL, "psycopg[binary]", "google-cloud-run"]
    subprocess.run([python, "-m", "pip", "install", "--quiet", *wanted], check=True)
    return python


def _against_the_rival(rival: Path, how: str) -> None:
    sides: dict[str, Callable[[], Any]] = {
        "delay()": lambda: _worker("delay", str(CALLS)),
        "enqueue()": lambda: _run(rival, ROOT / "benchmarks/runs_rival.py", str(CALLS)),
    }
    rounds = [{name: json.loads(side()) for name, side in sides.items()} for _ in range(ROUNDS)]
    print(f"\nA request with its row, {how}: p50 of {CALLS} calls, medians of {ROUNDS} rounds (ratio at least 2)")
    for what in ("whole", "beside run_job"):
        ours, theirs = (statistics.median(one[name][what] for one in rounds) for name in sides)
        ratio = statistics.median(one["enqueue()"][what] / one["delay()"][what] for one in rounds)
        print(
            f"  {what:14}  delay() {ours * 1000:6.2f} ms   enqueue() {theirs * 1000:6.2f} ms   ratio {ratio:.2f}"
        )


def _worker(work: str, *arguments: str) -> str:
    return _run(sys.executable, "-m", "benchmarks.runs_worker", work, *arguments)


def _run(*command: object) -> str:
    done = subprocess.run([*map(str, command)], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    if done.stdout and not done.stdout.startswith("{"):
        print(done.stdout, end="")
    return done.stdout


if __name__ == "__main__":
    started = time.monotonic()
    main()
    print(f"{time.monotonic() - started:.0f} s")
