"""Do the work of benchmarks/cli.py with one database: python -m benchmarks.cli_worker WORK ROWS."""

from __future__ import annotations

import json
import statistics
import sys
from io import StringIO

from benchmarks import runs_worker
from benchmarks.measuring import timed

READINGS = 100
VERBS = {
    "runs": ["runs"],
    "runs JOB --failed": ["runs", "job_3", "--failed"],
    "show RUN, eight digits": ["show"],
}


def fill(rows: int) -> None:
    from django.core.management import call_command
    from django.db import connection

    call_command("migrate", verbosity=0)
    with connection.cursor() as cursor:
        cursor.execute(runs_worker.FILL, [rows, rows])
        cursor.execute("VACUUM ANALYZE cloudrun_jobs_jobrun")


def read(rows: int) -> None:
    from cloudrun_jobs.models import JobRun

    prefix = str(JobRun.objects.newest_first()[:1][0].pk)[:8]
    found = {}
    for name, argv in VERBS.items():
        given = [*argv, prefix] if argv == ["show"] else argv
        _call(given)
        times = [timed(lambda given=given: _call(given)) for _ in range(READINGS)]  # type: ignore[misc]
        found[name] = statistics.quantiles(times, n=20)[-1]
    sys.stdout.write(json.dumps(found))


def _call(argv: list[str]) -> None:
    from django.core.management import call_command

    call_command("cloudrun_jobs", *argv, stdout=StringIO(), stderr=StringIO())


if __name__ == "__main__":
    {"fill": fill, "read": read}[sys.argv[1]](int(sys.argv[2]))
