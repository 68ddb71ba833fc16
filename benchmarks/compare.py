"""Compare this checkout with another one: python -m benchmarks.compare OTHER_CHECKOUT [WORK ...].

Each round runs both checkouts in turn, in new processes, against the same servers. The ratio is the median over
the rounds of this checkout's time to the other's.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.measuring import interleaved
from benchmarks.startup import MODELS, make_project, start

ROOT = Path(__file__).resolve().parent.parent
WORKER = ROOT / "benchmarks" / "compare_worker.py"
JOBS = 300  # Job commands of the project whose schedules are synced.
COMMAND = """
from cloudrun_jobs import CloudRunJobs
class Command(CloudRunJobs):
    schedule = "0 3 * * *"
    def add_arguments(self, parser):
        parser.add_argument("--partner", type=int)
    def run(self, *args, **options):
        return None
"""


def main(argv: list[str]) -> None:
    checkouts = {"this": ROOT, "other": Path(argv[0]).resolve()}
    works = argv[1:] or ["startup", "delay", "redis", "postgres", "sync"]
    with TemporaryDirectory() as directory:
        project = _project(Path(directory))
        servers, environment = _servers()
        try:
            for work in works:
                run = _startup(Path(directory)) if work == "startup" else _worker(work, project, environment)
                _report(work, *_measure(run, checkouts, rounds=25 if work == "startup" else 7))
        finally:
            for server in servers:
                server.stop()


def _measure(
    run: Callable[[Path], float], checkouts: dict[str, Path], rounds: int
) -> tuple[dict[str, float], float]:
    sides = {name: lambda path=path: run(path) for name, path in checkouts.items()}
    interleaved(sides, 1)  # Writes bytecode, creates tables.
    found = [interleaved(sides, 1) for _ in range(rounds)]
    medians = {name: median(one[name] for one in found) for name in checkouts}
    return medians, median(one["this"] / one["other"] for one in found)


def _report(work: str, medians: dict[str, float], ratio: float) -> None:
    times = ", ".join(f"{name} {seconds * 1000:.3f} ms" for name, seconds in medians.items())
    print(f"{work:10} ratio {ratio:.3f}   ({times})", flush=True)


def _project(directory: Path) -> Path:
    """Write an app with many job commands."""
    commands = directory / "sync" / "app" / "management" / "commands"
    commands.mkdir(parents=True)
    for number in range(JOBS):
        (commands / f"job_{number}.py").write_text(COMMAND)
    return directory / "sync"


def _servers() -> tuple[list[Any], dict[str, str]]:
    from tests.servers import redis, sql
    from tests.servers.process import Server, free_port

    cache, database, port = redis.start(redis.redis_program()), sql.postgres(), free_port()
    command = [sys.executable, "-m", "cloudrun_jobs.emulator", "--port=0", f"--grpc-port={port}", "--json"]
    emulator = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert emulator.stdout is not None
    endpoint = json.loads(emulator.stdout.readline())["grpc"]
    places = {"redis": redis.url(cache), "postgres": sql.postgres_settings(database.port), "endpoint": endpoint}

    class Emulator:
        def stop(self) -> None:
            emulator.terminate()
            emulator.wait()

    servers: list[Server | Emulator] = [cache, database, Emulator()]
    return servers, {"BENCHMARK_PLACES": json.dumps(places)}


def _worker(work: str, project: Path, environment: dict[str, str]) -> Callable[[Path], float]:
    def run(checkout: Path) -> float:
        command = [sys.executable, "-P", str(WORKER), work]
        env = {**os.environ, **environment, "PYTHONPATH": os.pathsep.join([str(checkout), str(project)])}
        output = subprocess.run(command, env=env, stdout=subprocess.PIPE, text=True, check=True).stdout
        return float(output.splitlines()[-1])

    return run


def _startup(directory: Path) -> Callable[[Path], float]:
    projects: dict[Path, Path] = {}

    def run(checkout: Path) -> float:
        environment = {"PYTHONPATH": str(checkout)}
        if checkout not in projects:  # Each checkout has migrations of its own.
            place = directory / f"job-{len(projects)}"
            manage = make_project(place, [*MODELS, "cloudrun_jobs", "app"], "cloudrun_jobs", "CloudRunJobs", "run")
            command = [sys.executable, str(manage), "migrate", "--verbosity=0"]
            subprocess.run(command, env={**os.environ, **environment}, check=True)
            projects[checkout] = manage
        return start(projects[checkout], environment)

    return run


if __name__ == "__main__":
    main(sys.argv[1:])
