"""Fault injection: kills, stops and resumes jobs for a while, then checks the history.

    python -m tests.locks.soak --seconds 600 --kind redis --kind postgres

A bad history stays in the directory that is printed; the seed determines the faults.
"""

from __future__ import annotations

import argparse
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from tests.locks.workers import Worker, Workers, most_at_once, until
from tests.servers import redis, sql
from tests.servers.process import Server

LEASE = 1.5
EXECUTIONS = 4
KINDS = ("redis", "postgres", "mariadb", "sqlite")


class FaultInjector:
    """Keeps some executions of one job alive, and injects the faults of a cloud."""

    def __init__(self, workers: Workers, chance: random.Random, harm: Callable[[], None]) -> None:
        self.workers = workers
        self.chance = chance
        self.harm = harm
        self.attempts: dict[str, int] = {}
        self.alive: dict[str, Worker] = {}
        self.faults = 0

    def run(self, seconds: float) -> None:
        """Inject faults for so many seconds, then kill all workers."""
        self._start_missing()
        until(self.workers.history)
        ends = time.monotonic() + seconds
        while time.monotonic() < ends:
            self._start_missing()
            self._wait()
            if victim := self._victim():
                self.faults += 1
                self.chance.choice([_kill, self._stop, self._move, _terminate])(victim)
            if self.chance.random() < 0.05:
                self.faults += 1
                self.harm()
        for worker in self.alive.values():
            worker.kill()

    def _start_missing(self) -> None:
        for execution, worker in list(self.alive.items()):
            if (status := worker.process.poll()) is not None:
                del self.alive[execution]
                # As Cloud Run does: a failed task is retried.
                if status and self.attempts[execution] < 3:
                    self._start(execution, self.attempts[execution] + 1)
        while len(self.alive) < EXECUTIONS:
            self._start(f"execution-{len(self.attempts)}", 0)

    def _start(self, execution: str, attempt: int) -> None:
        self.attempts[execution] = attempt
        seconds = f"--seconds={self.chance.uniform(0.2, 3):.2f}"
        self.alive[execution] = self.workers.start("work", seconds, execution=execution, attempt=attempt)

    def _victim(self) -> Worker | None:
        """Choose a worker: mostly one that works, sometimes one that starts."""
        working = [worker for worker in self.alive.values() if worker.entry("begin")]
        starting = list(self.alive.values()) if self.chance.random() < 0.1 else []
        return self.chance.choice(working or starting or [None])

    def _stop(self, victim: Worker) -> None:
        _send(victim, signal.SIGSTOP)
        time.sleep(self.chance.uniform(0, 2 * LEASE))
        _send(victim, signal.SIGCONT)

    def _move(self, victim: Worker) -> None:
        _send(victim, signal.SIGTSTP)
        time.sleep(self.chance.uniform(0, 0.5))
        _send(victim, signal.SIGCONT)

    def _wait(self) -> None:
        time.sleep(self.chance.uniform(0.1, 1))


def _kill(victim: Worker) -> None:
    victim.process.kill()


def _terminate(victim: Worker) -> None:
    _send(victim, signal.SIGTERM)


def _send(worker: Worker, number: signal.Signals) -> None:
    if worker.process.poll() is None:
        worker.send(number)


def soak(kind: str, seconds: float, seed: int) -> Path | None:
    """Run against one kind of server; return the directory of the history if it is bad."""
    home = Path(tempfile.mkdtemp(prefix=f"soak-{kind}-"))
    server, workers, harm = start(kind, home)
    injector = FaultInjector(workers, random.Random(seed), harm)
    try:
        injector.run(seconds)
        faults = problems(workers.history())
        print(
            f"{kind}: seed {seed}, {injector.faults} faults, {len(injector.attempts)} executions, "
            f"{len(workers.history())} entries, {len(faults)} problems"
        )
        for fault in faults:
            print(f"  {fault}; see {home}")
        return home if faults else None
    finally:
        workers.stop()
        if server:
            server.stop()


def problems(entries: list[dict[str, Any]]) -> list[str]:
    """Return the faults of a history: two processes that worked at once, and tokens that did not grow."""
    found = []
    work = [entry for entry in entries if entry["what"] in {"begin", "work"}]
    if (at_once := most_at_once(work)) > 1:
        found.append(f"{at_once} processes worked at once")
    begun = [
        entry["token"] for entry in sorted(entries, key=lambda entry: entry["at"]) if entry["what"] == "begin"
    ]
    if begun != sorted(set(begun)):
        found.append(f"tokens did not grow: {begun}")
    if not begun:
        found.append("nothing ever ran")
    return found


def start(kind: str, home: Path) -> tuple[Server | None, Workers, Callable[[], None]]:
    """Start the server; return it, its workers and a function that injects a fault into it."""
    database: dict[str, Any] = {"ENGINE": "django.db.backends.sqlite3", "NAME": str(home / "db")}
    locks: dict[str, Any] = {"BACKEND": "cloudrun_jobs.locks.database.DatabaseLocks", "OPTIONS": {"lease": LEASE}}
    server: Server | None = None
    harm: Callable[[], None] = _do_nothing
    if kind == "redis":
        server = redis.start(redis.redis_program())
        locks = {
            "BACKEND": "cloudrun_jobs.locks.redis.RedisLocks",
            "OPTIONS": {"lease": LEASE, "url": redis.url(server)},
        }
    elif kind == "postgres":
        server = sql.postgres()
        database = sql.postgres_settings(server.port)
        harm = partial(_end_connections, server)
    elif kind == "mariadb":
        server = sql.mariadb()
        database = sql.mariadb_settings(server.port)
    workers = Workers(home / "history", locks, {"default": database})
    status, output = workers.start("migrate", "cloudrun_jobs", execution="").wait()
    assert status == 0, output
    return server, workers, harm


def _do_nothing() -> None:
    """Inject no fault."""


def _end_connections(server: Server) -> None:
    import psycopg

    with psycopg.connect(f"host=127.0.0.1 port={server.port} user=postgres dbname=postgres") as connection:
        connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()")


def main() -> int:
    """Run one kind after the other; return 1 if a history is bad."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    parser.add_argument("--kind", action="append", choices=KINDS)
    options = parser.parse_args()
    bad = [soak(kind, options.seconds, options.seed) for kind in options.kind or KINDS]
    return int(any(bad))


if __name__ == "__main__":
    sys.exit(main())
