"""Measure the HTTP API: lists of a million runs, starts by 32 clients, and the verification of ID tokens."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from types import MappingProxyType

from benchmarks.secured import secured
from tests.servers import sql
from tests.servers.process import free_port
from tests.waiting import wait_for

ROOT = Path(__file__).resolve().parent.parent
SIZES = (20_000, 1_000_000)
ROUNDS, CALLS = 9, 320
PATHS = ("/cloudrun_jobs/jobs/echo/", "/job/7")
EMULATOR = """
import sys
from cloudrun_jobs.emulator import Emulator
with Emulator() as emulator:
    emulator.faults.cold_start(86_400, times=None)
    print(emulator.grpc, flush=True)
    sys.stdin.read()
"""


def main() -> None:
    """Measure against PostgreSQL."""
    postgres = sql.postgres()
    try:
        settings = sql.postgres_settings(postgres.port)
        os.environ["BENCHMARK_DATABASES"] = json.dumps(
            create_databases(settings, *(f"runs_{size}" for size in SIZES))
        )
        starts()
        worker("verify")
        worker("pages")
    finally:
        postgres.stop()


def create_databases(settings: dict[str, object], *names: str) -> dict[str, object]:
    import psycopg

    with psycopg.connect(f"host=127.0.0.1 port={settings['PORT']} user=postgres", autocommit=True) as connection:
        for name in names:
            connection.execute(f'CREATE DATABASE "{name}"')
    return {"default": settings, **{name: {**settings, "NAME": name} for name in names}}


def worker(work: str) -> None:
    subprocess.run([sys.executable, "-m", "benchmarks.http_worker", work], cwd=ROOT, check=True)


def starts() -> None:
    """Measure the requests per second that start a run, against a view that makes a client per call."""
    with emulator() as endpoint:
        os.environ["BENCHMARK_ENDPOINT"] = endpoint
        worker("prepare")
        _compare_starts("without TLS and token")
        with secured(endpoint) as environment:
            _compare_starts("with TLS and a token of a metadata server", environment)


@contextmanager
def emulator() -> Iterator[str]:
    """Run the emulator in a process of its own. Its executions stay pending: the cores are for the servers."""
    command = [sys.executable, "-c", EMULATOR]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT) as server:
        assert server.stdout is not None
        yield server.stdout.readline().strip()
        server.kill()


def _compare_starts(how: str, environment: Mapping[str, str] = MappingProxyType({})) -> None:
    address = f"127.0.0.1:{free_port()}"
    # As in the image; connections may be idle between two requests.
    options = ["--bind", address, "--threads=8", "--timeout=0", "--keep-alive=60", "--no-control-socket"]
    options += ["--log-level=error"]
    command = [sys.executable, "-m", "gunicorn", *options, "benchmarks.http_server:application"]
    with subprocess.Popen(command, cwd=ROOT, env={**os.environ, **environment}) as server:
        try:
            wait_for(lambda: _accepts(address))
            rounds = [{path: _rate(address, path) for path in PATHS} for _ in range(ROUNDS)]
        finally:
            server.terminate()
    ours, theirs = (median(one[path] for one in rounds) for path in PATHS)
    ratio = median(one[PATHS[0]] / one[PATHS[1]] for one in rounds)
    print(f"\nStarts by 32 clients, {how}: medians of {ROUNDS} rounds of {CALLS} (ratio at least 2)")
    print(
        f"  POST jobs/echo/ {ours:.0f} per second   a view {theirs:.0f} per second   ratio {ratio:.2f}", flush=True
    )


def _accepts(address: str) -> bool:
    host, _, port = address.partition(":")
    try:
        socket.create_connection((host, int(port))).close()
    except OSError:
        return False
    return True


def _rate(address: str, path: str) -> float:
    command = [sys.executable, "-m", "benchmarks.http_clients", address, path, str(CALLS)]
    return float(subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True).stdout)
