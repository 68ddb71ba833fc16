"""Fill databases with many runs, and read one of them at a time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# The newest run is of today, the others are ten seconds apart.
FILL = """
INSERT INTO cloudrun_jobs_jobrun
  (id, command, environment, trigger, requested_by, status, reason, created_at, started_at, finished_at,
   execution, execution_name, log_uri, image, task_count, succeeded_count, failed_count, cancelled_count,
   retried_count, error_class, error_message, traceback)
SELECT gen_random_uuid(), {command}, 'production', {trigger}, '', {status}, {reason},
  t, t, t + interval '40 seconds',
  'execution-' || n, 'projects/acme/locations/asia-northeast1/jobs/job/executions/execution-' || n, '', '',
  1, 1, 0, 0, 0, '', '', ''
FROM (SELECT n, now() - ({rows} - n) * interval '10 seconds' AS t FROM generate_series(1, {rows}) AS n) AS numbers
"""
INDEXES = """
SELECT indexname, indexdef FROM pg_indexes
WHERE tablename = 'cloudrun_jobs_jobrun' AND indexname LIKE 'cloudrun_jobs_run_%'
"""


class CurrentDatabase:
    """Routes all queries to one database."""

    name = "default"

    def db_for_read(self, model: Any, **hints: Any) -> str:
        return self.name

    db_for_write = db_for_read


def fill(name: str, values: Mapping[str, str]) -> None:
    """Migrate the database, and insert its runs, with `values` for their number n.

    It drops the indexes meanwhile, which is faster.
    """
    from django.core.management import call_command
    from django.db import connections

    call_command("migrate", database=name, verbosity=0)
    with connections[name].cursor() as cursor:
        cursor.execute(INDEXES)
        indexes = dict(cursor.fetchall())
        for index in indexes:
            cursor.execute(f"DROP INDEX {index}")
        cursor.execute(FILL.format(rows=int(name.rpartition("_")[2]), **values))
        for definition in indexes.values():
            cursor.execute(definition)
        cursor.execute("VACUUM ANALYZE cloudrun_jobs_jobrun")
