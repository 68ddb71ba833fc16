"""Measure event streams on one ASGI worker: from a commit to its event, and the queries of the streams."""

from __future__ import annotations

import asyncio
import json
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NUMBERS = (1, 10, 100)
SECONDS = 15
COMMITS_PER_SECOND = 20
QUERY = 'SELECT "cloudrun_jobs_jobrun"'  # As PostgreSQL logs it.


def main() -> None:
    from tests.servers import sql

    postgres = sql.postgres()
    try:
        os.environ["BENCHMARK_DATABASE"] = json.dumps(sql.postgres_settings(postgres.port))
        prepare = [sys.executable, "-m", "benchmarks.streams_worker", str(max(NUMBERS))]
        runs = json.loads(subprocess.run(prepare, cwd=ROOT, stdout=subprocess.PIPE, check=True).stdout)
        with _uvicorn() as port:
            print(f"\nEvent streams on one ASGI worker, {SECONDS} s with {COMMITS_PER_SECOND} commits per second")
            for number in NUMBERS:
                asyncio.run(_measure(port, postgres.port, postgres.home / "log", runs[:number]))
    finally:
        postgres.stop()


@contextmanager
def _uvicorn() -> Iterator[int]:
    from tests.servers.process import free_port

    port = free_port()
    command = ["uvicorn", "--log-level=warning", "--lifespan=off", f"--port={port}"]
    command += ["--timeout-graceful-shutdown=1", "benchmarks.streams_worker:application"]
    with subprocess.Popen([sys.executable, "-m", *command], cwd=ROOT) as server:
        try:
            yield port
        finally:
            server.terminate()


async def _measure(port: int, database_port: int, log: Path, runs: list[str]) -> None:
    """Print the latency of changes to these runs, each with a stream, and the queries per second."""
    import psycopg

    committed: dict[str, float] = {}
    latencies: list[float] = []

    async def read(reader: asyncio.StreamReader) -> None:
        while line := await reader.readline():
            if line.startswith(b"data:") and (sent := committed.get(json.loads(line[5:]).get("reason"))):
                latencies.append(time.monotonic() - sent)

    target = f"host=127.0.0.1 port={database_port} user=postgres dbname=postgres"
    async with AsyncExitStack() as stack:
        connection = await psycopg.AsyncConnection.connect(target, autocommit=True)
        await stack.enter_async_context(connection)
        streams = [await stack.enter_async_context(_stream(port, run)) for run in runs]
        readers = [asyncio.create_task(read(stream)) for stream in streams]
        await asyncio.sleep(1)
        before, started = _queries(log), time.monotonic()
        for number in range(SECONDS * COMMITS_PER_SECOND):
            # At least a second between two changes of a run: of changes within an interval, the last one is sent.
            if number % max(1, COMMITS_PER_SECOND // len(runs)) == 0:
                reason, run = f"{len(runs)} {number}", runs[number % len(runs)]
                statement = "UPDATE cloudrun_jobs_jobrun SET reason = %s WHERE id = %s"
                await connection.execute(statement, [reason, run])
                committed[reason] = time.monotonic()
            await asyncio.sleep(random.uniform(0, 2 / COMMITS_PER_SECOND))
        queries = (_queries(log) - before) / (time.monotonic() - started)
        await asyncio.sleep(2)
        for reader in readers:
            reader.cancel()
    p50, p95 = statistics.median(latencies), statistics.quantiles(latencies, n=20)[-1]
    print(
        f"  {len(runs):4} streams: {len(latencies)} of {len(committed)} events, p50 {p50:.2f} s, p95 {p95:.2f} s "
        f"(at most 1.5), {queries:.1f} queries per second"
    )


@asynccontextmanager
async def _stream(port: int, run: str) -> AsyncIterator[asyncio.StreamReader]:
    """Open a stream, and read its first event."""
    for _ in range(100):
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
        except ConnectionError:  # The server is not up yet.
            await asyncio.sleep(0.1)
        else:
            break
    writer.write(f"GET /jobs/{run}/events/ HTTP/1.1\r\nHost: localhost\r\nX-Token: token\r\n\r\n".encode())
    while not (await reader.readline()).startswith(b"data:"):
        pass
    try:
        yield reader
    finally:
        writer.close()


def _queries(log: Path) -> int:
    return log.read_text().count(QUERY)


if __name__ == "__main__":
    main()
