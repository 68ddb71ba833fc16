"""Read the outcomes of every job's newest runs in one query, however many runs there are."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, cast

from django.db import connections

from cloudrun_jobs.models.statuses import Status
from cloudrun_jobs.models.values import Stats

if TYPE_CHECKING:
    from cloudrun_jobs.models.querysets import JobRunQuerySet
    from cloudrun_jobs.models.runs import JobRun

FAILURES = (Status.FAILED, Status.LOST)

# Each name is found by one look-up in the index on the command; a GROUP BY would read the index of all runs.
ALL_NAMES = """
        SELECT MIN(command) FROM {table}
        UNION ALL
        SELECT (SELECT MIN(run.command) FROM {table} run WHERE run.command > names.command)
        FROM names WHERE names.command IS NOT NULL"""
# The same for each column that an index begins with.
VALUES = """
    WITH RECURSIVE found (value) AS (
        SELECT MIN({column}) FROM {table}
        UNION ALL
        SELECT (SELECT MIN(run.{column}) FROM {table} run WHERE run.{column} > found.value)
        FROM found WHERE found.value IS NOT NULL
    )
    SELECT value FROM found WHERE value IS NOT NULL"""
ONE_NAME = "SELECT MIN(command) FROM {table} WHERE command = %s"
JOBS = """
    WITH RECURSIVE names (command) AS ({names}), jobs (command, since) AS (
        SELECT names.command, COALESCE(
            (SELECT run.created_at FROM {table} run WHERE run.command = names.command
             ORDER BY run.created_at DESC LIMIT 1 OFFSET %s),
            (SELECT MIN(run.created_at) FROM {table} run WHERE run.command = names.command)
        ) FROM names WHERE names.command IS NOT NULL
    )"""
COLUMNS = "run.id, run.command, run.status, run.created_at, run.started_at, run.finished_at"
NEWEST = f"""
    SELECT {COLUMNS}, 1 AS is_newest FROM jobs
    JOIN {{table}} run ON run.command = jobs.command AND run.created_at >= jobs.since"""  # noqa: S608  (no values)
LAST_END = f"""
    SELECT {COLUMNS}, 0 AS is_newest FROM jobs
    JOIN {{table}} run ON run.id = (
        SELECT last.id FROM {{table}} last
        WHERE last.command = jobs.command AND last.status = %s AND last.finished_at IS NOT NULL
        ORDER BY last.finished_at DESC LIMIT 1
    )"""  # noqa: S608

# The last tick of each Scheduler job is one look-up in the index of ticks. The table has many more names: those of
# reservations, and of schedules that were removed.
LAST_TICKS = """
    SELECT run.id, run.schedule, run.scheduled_for FROM ({ids}) last JOIN {table} run ON run.id = last.id"""
LAST_TICK = """
    SELECT (
        SELECT tick.id FROM {table} tick
        WHERE tick.schedule = %s AND tick.environment = %s AND tick.scheduled_for IS NOT NULL
        ORDER BY tick.scheduled_for DESC LIMIT 1
    ) AS id"""
LAST_RUNS = "SELECT run.id, run.command FROM ({ids}) last JOIN {table} run ON run.id = last.id"
LAST_RUN = """
    SELECT (
        SELECT newest.id FROM {table} newest WHERE newest.command = %s AND newest.environment = %s
        ORDER BY newest.created_at DESC LIMIT 1
    ) AS id"""
UNION_LIMIT = 400  # queries; SQLite's is 500 in a compound SELECT.


def read_values(runs: JobRunQuerySet, column: str) -> list[str]:
    """Return the values of a column that an index begins with, in order, with one query."""
    connection = connections[runs.db]
    names = {"table": runs.model._meta.db_table, "column": column}
    quoted = {key: connection.ops.quote_name(name) for key, name in names.items()}
    with connection.cursor() as cursor:
        cursor.execute(VALUES.format(**quoted))
        return sorted(value for (value,) in cursor.fetchall())


def read_last_ticks(runs: JobRunQuerySet, environment: str, schedules: Sequence[str]) -> dict[str, datetime]:
    """Return the latest due time for which each of these Scheduler jobs has started a run, by its name."""
    given = [(schedule, environment) for schedule in schedules]
    found = _look_up(runs, LAST_TICKS, LAST_TICK, given)
    return {cast(str, run.schedule): cast(datetime, run.scheduled_for) for run in found}


def read_last_runs(
    runs: JobRunQuerySet, environment: str, commands: Sequence[str], fields: Sequence[str]
) -> dict[str, JobRun]:
    """Return each job's newest run in the environment with these fields, by its name, with two queries."""
    ids = [run.pk for run in _look_up(runs, LAST_RUNS, LAST_RUN, [(command, environment) for command in commands])]
    return {run.command: run for run in runs.filter(pk__in=ids).only(*fields)} if ids else {}


def _look_up(runs: JobRunQuerySet, query: str, one: str, values: Sequence[tuple[str, ...]]) -> Iterable[JobRun]:
    """Return the runs that `one` finds for each of the tuples of values, with one query."""
    if not values:
        return ()
    counts = [len(values[start : start + UNION_LIMIT]) for start in range(0, len(values), UNION_LIMIT)]
    parts = [f"SELECT id FROM ({_union([one] * count)}) part{part}" for part, count in enumerate(counts)]  # noqa: S608
    table = connections[runs.db].ops.quote_name(runs.model._meta.db_table)
    sql = query.replace("{ids}", _union(parts)).format(table=table)
    return runs.raw(sql, [value for given in values for value in given])


def _union(queries: Sequence[str]) -> str:
    return " UNION ALL ".join(queries)


def read_stats(runs: JobRunQuerySet, newest: int, command: str | None = None) -> dict[str, Stats]:
    """Return the outcomes of each job's newest runs, or those of one job, by job name."""
    table = connections[runs.db].ops.quote_name(runs.model._meta.db_table)
    ends = (Status.SUCCEEDED, *FAILURES)
    jobs = JOBS.replace("{names}", ALL_NAMES if command is None else ONE_NAME)
    sql = _union([jobs + NEWEST, *[LAST_END] * len(ends)]).format(table=table)
    names = [] if command is None else [command]
    by_command = defaultdict[str, list["JobRun"]](list)
    for run in runs.raw(sql, [*names, newest - 1, *ends]):
        by_command[run.command].append(run)
    return {command: _stats(by_command[command], newest) for command in sorted(by_command)}


def _stats(rows: Sequence[JobRun], newest: int) -> Stats:
    newest_rows = sorted((row for row in rows if row.is_newest), key=lambda row: row.created_at)[-newest:]  # type: ignore[attr-defined]
    durations = sorted(
        row.finished_at - row.started_at for row in newest_rows if row.started_at and row.finished_at
    )
    return Stats(
        counts=dict(Counter(row.status for row in newest_rows)),
        last_success=_last_end(rows, [Status.SUCCEEDED]),
        last_failure=_last_end(rows, FAILURES),
        p50=percentile(durations, 50),
        p95=percentile(durations, 95),
    )


def _last_end(rows: Iterable[JobRun], statuses: Sequence[Status]) -> datetime | None:
    return max((row.finished_at for row in rows if row.finished_at and row.status in statuses), default=None)


def percentile(durations: Sequence[timedelta], percent: int) -> timedelta | None:
    """Return the shortest duration that so many per cent of all do not exceed."""
    return durations[math.ceil(len(durations) * percent / 100) - 1] if durations else None
