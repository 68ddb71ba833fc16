"""Do the work of benchmarks/runs.py that needs Django: python -m benchmarks.runs_worker WORK [CALLS]."""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import django
from django.conf import settings

DATABASES = json.loads(os.environ["BENCHMARK_DATABASES"])
SECURED = os.environ.get("BENCHMARK_SECURED")
OPTIONS = {"endpoint": None if SECURED else os.environ.get("BENCHMARK_ENDPOINT"), "runs_per_minute": 10_000}
CLOUD = {"ENVIRONMENT": "production", "PROJECT": "acme", "REGION": "asia-northeast1", "OPTIONS": OPTIONS}
settings.configure(
    SECRET_KEY="x",
    INSTALLED_APPS=["django.contrib.contenttypes", "cloudrun_jobs", "tests.jobs"],
    DATABASES={name: DATABASES[name] for name in DATABASES if name != "rival"},
    CLOUDRUN_JOBS=CLOUD,
    USE_TZ=True,
)
django.setup()

from django.core.management import call_command  # noqa: E402
from django.db import connection, connections  # noqa: E402

from benchmarks.measuring import timed  # noqa: E402
from cloudrun_jobs.models import JobRun  # noqa: E402
from tests.jobs.management.commands.walk import Command  # noqa: E402

READINGS = 300
# Ten jobs. The first never fails, the second last succeeded long ago: the worst case for the query.
FILL = """
INSERT INTO cloudrun_jobs_jobrun
  (id, command, environment, trigger, requested_by, status, reason, created_at, started_at, finished_at,
   execution, execution_name, log_uri, image, task_count, succeeded_count, failed_count, cancelled_count,
   retried_count, error_class, error_message, traceback)
SELECT gen_random_uuid(), 'job_' || n %% 10, 'production', 'schedule', '',
  CASE WHEN n %% 10 = 0 THEN 'succeeded' WHEN n %% 10 = 1 AND n > 100 THEN 'failed'
       WHEN n %% 37 = 0 THEN 'failed' WHEN n %% 101 = 0 THEN 'lost' ELSE 'succeeded' END,
  '', t, t, t + interval '40 seconds',
  'execution-' || n, 'projects/acme/locations/asia-northeast1/jobs/job/executions/execution-' || n, '', '',
  1, 1, 0, 0, 0, '', '', ''
FROM (SELECT n, now() - (%s - n) * interval '10 seconds' AS t FROM generate_series(1, %s) AS n) AS numbers
"""


def prepare() -> None:
    """Migrate, and create the job that is sent."""
    import grpc
    from google.cloud import run_v2
    from google.cloud.run_v2.services.jobs.transports import JobsGrpcTransport

    call_command("migrate", verbosity=0)
    client = run_v2.JobsClient(
        transport=JobsGrpcTransport(channel=grpc.insecure_channel(str(OPTIONS["endpoint"])))
    )
    container = run_v2.Container(image="bench", command=["/bin/true"])
    task = run_v2.TaskTemplate(containers=[container], max_retries=0)
    job = run_v2.Job(template=run_v2.ExecutionTemplate(template=task))
    for name in ("echo-production", "walk-production"):
        client.create_job(parent="projects/acme/locations/asia-northeast1", job=job, job_id=name).result(30)


def delay() -> None:
    """Time `delay()`, as a whole and without the call of Google's client."""
    from google.cloud.run_v2.services import jobs
    from google.cloud.run_v2.services.jobs import JobsClient

    waited, run_job = [0.0], JobsClient.run_job

    def timed_run_job(*args: Any, **kwargs: Any) -> Any:
        start = time.perf_counter()
        try:
            return run_job(*args, **kwargs)
        finally:
            waited[0] = time.perf_counter() - start

    JobsClient.run_job = timed_run_job
    if SECURED:
        jobs.JobsClient = partial(JobsClient, client_options={"api_endpoint": SECURED})

    def call() -> tuple[float, float]:
        seconds = timed(lambda: Command().delay(steps=7).execution_name)
        return seconds, seconds - waited[0]

    for _ in range(10):
        call()
    whole, own = zip(*(call() for _ in range(int(sys.argv[2]))), strict=True)
    assert JobRun.objects.latest().execution_name, "It was not sent."
    sys.stdout.write(json.dumps({"whole": statistics.median(whole), "beside run_job": statistics.median(own)}))


def count() -> None:
    """Count the queries of a request, with a stand-in for the service, and of a whole run in this process."""
    from google.cloud.run_v2 import Execution

    from cloudrun_jobs.backends.cloudrun import CloudRunBackend
    from cloudrun_jobs.backends.cloudrun.operation import CloudRunOperation

    def submit(backend: Any, run: Any, request: Any, **rest: Any) -> CloudRunOperation:
        name = f"projects/acme/locations/a/jobs/b/executions/{request.run_id}"
        return CloudRunOperation(request.run_id, backend, execution=Execution(name=name))

    CloudRunBackend.submit = submit
    call_command("migrate", verbosity=0)
    print(f"\nQueries of delay(): {_queries(lambda: Command().delay(steps=7))} (at most 2)")
    settings.CLOUDRUN_JOBS = {"ENVIRONMENT": "local"}
    print(f"Queries of a run by delay() in this process: {_queries(lambda: Command().delay(steps=7))} (at most 6)")
    print(f"Queries of a run by manage.py: {_queries(lambda: call_command(Command(), '7'))} (at most 6)")


def _queries(work: Callable[[], object]) -> int:
    queries: list[str] = []

    def note(execute: Any, sql: str, *rest: Any) -> Any:
        queries.append(sql)
        return execute(sql, *rest)

    with connection.execute_wrapper(note):
        work()
    return len(queries)


def read() -> None:
    """Time the queries of a page of runs, with few runs and with many, in turn."""
    small, large = (name for name in DATABASES if name.startswith("runs_"))
    for name in (small, large):
        rows = int(name.rpartition("_")[2])
        call_command("migrate", database=name, verbosity=0)
        with connections[name].cursor() as cursor:
            cursor.execute(FILL, [rows, rows])
            cursor.execute("VACUUM ANALYZE cloudrun_jobs_jobrun")
    readings: dict[str, Callable[[str], object]] = {
        "latest 50": lambda db: list(JobRun.objects.using(db).newest_first()[:50]),
        "latest 50 of a job": lambda db: list(JobRun.objects.using(db).for_command("job_3").newest_first()[:50]),
        "latest 50 failed": lambda db: list(JobRun.objects.using(db).failed().newest_first()[:50]),
        "stats": lambda db: JobRun.objects.using(db).stats(),
    }
    print(f"\nReading, p95 of {READINGS}: {small} against {large} rows of 10 jobs (ratio at most 2)")
    for what, query in readings.items():
        times: dict[str, list[float]] = {small: [], large: []}
        for _ in range(READINGS):
            for name, seconds in times.items():
                seconds.append(timed(partial(query, name)))
        few, many = (statistics.quantiles(seconds[10:], n=20)[-1] for seconds in times.values())
        print(f"  {what:20} {few * 1000:7.2f} ms {many * 1000:7.2f} ms   {many / few:5.2f}")


if __name__ == "__main__":
    {"prepare": prepare, "delay": delay, "count": count, "read": read}[sys.argv[1]]()
