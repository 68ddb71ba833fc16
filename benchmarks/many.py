"""Compare the time that a caller spends in `delay_many()` and in a loop over `delay()`."""

from __future__ import annotations

import json
import os
from statistics import median
from tempfile import TemporaryDirectory

from benchmarks.measuring import report, timed

CALLS = 1000
ROUNDS = 5


def main() -> None:
    with TemporaryDirectory() as directory:
        os.environ |= {
            "DJANGO_SETTINGS_MODULE": "tests.settings",
            "TESTS_DATABASE": f"{directory}/records.sqlite3",
            "CLOUDRUN_JOBS_ENVIRONMENT": "production",
            "CLOUDRUN_JOBS_PROJECT": "acme",
            "CLOUDRUN_JOBS_REGION": "asia-northeast1",
        }
        import django

        django.setup()
        from django.core.management import call_command

        call_command("migrate", verbosity=0)
        _measure()


def _measure() -> None:
    from tests.backends.server import serve
    from tests.jobs.management.commands.echo import Command

    elements = [{"partner": number} for number in range(CALLS)]

    def loop() -> None:
        for element in elements:
            Command().delay(**element)

    with serve() as server:  # It answers at once: the caller's own time remains.
        os.environ["CLOUDRUN_JOBS_OPTIONS"] = json.dumps({"endpoint": server.endpoint, "runs_per_minute": 10_000})
        sides = {"delay_many()": lambda: Command().delay_many(elements), f"{CALLS} × delay()": loop}
        samples = {name: [timed(work) for _ in range(ROUNDS)] for name, work in sides.items()}
        requests = len(server.requests) // ROUNDS
    medians = {name: median(values) for name, values in samples.items()}
    report(f"{CALLS} calls of a job ({ROUNDS} rounds): {requests} requests", medians, base="delay_many()")
