"""Measure Cloud Logging entries: a log record as a line of JSON, and 100 000 lines of output in a container."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.measuring import Seconds, interleaved, report, timed
from benchmarks.startup import CONTAINER, MODELS, make_project

RECORDS, LINES = 20_000, 100_000
WRITES = """
import os, time
from cloudrun_jobs import CloudRunJobs
class Command(CloudRunJobs):
    parallelism, overlap = None, "allow"
    def run(self, *args, **options):
        write = print if os.environ["WRITES"] == "print" else self.stdout.write
        began = time.perf_counter()
        for number in range({lines}):
            write(f"Imported row {{number}} of the partner")
        os.write(int(os.environ["REPORT"]), str(time.perf_counter() - began).encode())
"""


def main() -> None:
    records()
    lines()


def records() -> None:
    """Compare a record through the filter and the formatter of the recipe with one through `logging.Formatter`."""
    from django.conf import settings

    if not settings.configured:
        settings.configure(USE_TZ=True)
    from pythonjsonlogger.json import JsonFormatter

    from cloudrun_jobs import logs
    from cloudrun_jobs.logs import context

    os.environ.update({**CONTAINER, "CLOUD_RUN_EXECUTION": "noop-production-x7k2p"})
    standard = logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s")
    alone = JsonFormatter("%(asctime)s %(levelname)s %(name)s %(message)s")
    recipe = logs.JsonFormatter()
    prepare = logs.JobContextFilter().filter

    def formatted(formatter: logging.Formatter, *, filtered: bool = False) -> Seconds:
        values = ("shop", logging.INFO, __file__, 1, "Imported %d rows of %s", (7, "acme"), None)
        given = [logging.LogRecord(*values, func="run") for _ in range(RECORDS)]

        def work() -> None:
            for record in given:
                prepared = prepare(record) if filtered else record
                formatter.format(prepared if isinstance(prepared, logging.LogRecord) else record)

        return timed(work)

    with context.activated("noop-production", "0190f1d0-7c7e-7c52-9f4e-2f4d6a1c8f10"):
        sides = {
            "logging.Formatter": lambda: formatted(standard),
            "python-json-logger": lambda: formatted(alone),
            "JobContextFilter and python-json-logger": lambda: formatted(recipe, filtered=True),
        }
        interleaved(sides, 1)
        report(f"{RECORDS} records (at most 3.0)", interleaved(sides, 15), base="logging.Formatter")


def lines() -> None:
    with TemporaryDirectory() as directory:
        command = WRITES.format(lines=LINES)
        job = make_project(
            Path(directory, "job"),
            [*MODELS, "cloudrun_jobs", "app"],
            "",
            "",
            "",
            command=command.replace("{", "{{").replace("}", "}}"),
        )
        subprocess.run([sys.executable, str(job), "migrate", "--verbosity=0"], check=True)
        sides = {name: lambda name=name: written(job, name) for name in ("print", "self.stdout.write")}
        interleaved(sides, 1)
        report(f"{LINES} lines in a container (at most 4)", interleaved(sides, 7), base="print")


def written(manage: Path, writes: str) -> Seconds:
    """Return the time that the container takes to write the lines while this process reads them."""
    reading, writing = os.pipe()
    environment = {**os.environ, **CONTAINER, "CLOUD_RUN_EXECUTION": f"noop-production-{time.time_ns()}"}
    process = subprocess.Popen(
        [sys.executable, str(manage), "noop"],
        env={**environment, "WRITES": writes, "REPORT": str(writing)},
        stdout=subprocess.PIPE,
        pass_fds=[writing],
    )
    os.close(writing)
    assert process.stdout is not None
    count = sum(chunk.count(b"\n") for chunk in iter(lambda: process.stdout.read1(1 << 18), b""))
    assert process.wait() == 0
    assert count >= LINES
    with os.fdopen(reading) as file:
        return float(file.read())
