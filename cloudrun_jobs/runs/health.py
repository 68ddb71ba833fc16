"""Find the faults that keep jobs from running: late schedules and runs, missing tables, unreachable servers."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from importlib import import_module
from pkgutil import iter_modules
from threading import Lock, Thread

from django.db import Error, connections
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.recorder import MigrationRecorder
from django.db.models import Count, Q, QuerySet

from cloudrun_jobs import conf, locks
from cloudrun_jobs.models import JobRun, Status, Trigger
from cloudrun_jobs.models.functions import Now
from cloudrun_jobs.runs import database
from cloudrun_jobs.runs.due import due_schedules
from cloudrun_jobs.spec import JobSpec

# `reconcile` should settle a run within this time of its last heartbeat, or of its reserved time.
RECONCILE_LIMIT = timedelta(minutes=15)

PROBE_LIMIT_SECONDS = 3.0  # For the database and the lock server, which are probed concurrently.
HANG_LIMIT_SECONDS = 15.0  # After `PROBE_LIMIT_SECONDS`, another thread replaces a probe that has not ended.
CACHE_SECONDS = 5.0  # Later callers reuse the findings of a probe for this time.

CHECK_HINT = "`manage.py check --database default` shows the error."


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One fault, by a stable code."""

    code: str
    message: str
    hint: str = ""
    #: The job that it concerns; None if it concerns all.
    command: str | None = None
    scheduler_job: str = ""
    since: datetime | None = None


DATABASE_UNREACHABLE = Finding(
    code="database_unreachable", message="The database of the run records does not answer.", hint=CHECK_HINT
)
LOCKS_UNREACHABLE = Finding(
    code="lock_server_unreachable", message="The lock server does not answer.", hint=CHECK_HINT
)


def find_faults(specs: Sequence[JobSpec]) -> list[Finding]:
    """Return the faults of the jobs and of the servers they need, within `PROBE_LIMIT_SECONDS`."""
    check_database = partial(_check_database, specs)
    # Another thread would not see what an open transaction has written, as in tests, nor a database in memory.
    is_open = database.in_transaction()
    is_sqlite = connections[database.database_alias()].vendor == "sqlite"
    collecting = [
        _collecting("locks", _check_locks, LOCKS_UNREACHABLE, in_thread=not is_open),
        _collecting("database", check_database, DATABASE_UNREACHABLE, in_thread=not (is_open or is_sqlite)),
    ]
    return [finding for collect in collecting for finding in collect()]


def _collecting(
    name: str, check: Callable[[], Iterable[Finding]], failure: Finding, *, in_thread: bool
) -> Callable[[], list[Finding]]:
    """Return a function that returns the findings; with `in_thread`, of a thread that is started now."""
    attempt = partial(_attempt, check, failure)
    return partial(_started(name, attempt).findings, unanswered=failure) if in_thread else attempt


def _attempt(check: Callable[[], Iterable[Finding]], failure: Finding) -> list[Finding]:
    found: list[Finding] = []
    try:
        found.extend(check())
    except Exception:  # noqa: BLE001  (a lock backend may be the project's own)
        found.append(failure)
    return found


class _Probe(Thread):
    """Collects findings in a thread: a driver may wait minutes for a server that does not answer."""

    def __init__(self, collect: Callable[[], list[Finding]]) -> None:
        super().__init__(daemon=True)
        self._collect = collect
        self._found: list[Finding] | None = None
        self._deadline = time.monotonic() + PROBE_LIMIT_SECONDS
        self._ended_at: float | None = None

    def run(self) -> None:
        try:
            self._found = self._collect()
        finally:
            self._ended_at = time.monotonic()
            connections.close_all()  # Those of this thread.

    @property
    def is_current(self) -> bool:
        """True while it runs and `CACHE_SECONDS` after. In a forked child, the parent's threads have ended."""
        if self._ended_at is None:
            return self.is_alive() and time.monotonic() < self._deadline + HANG_LIMIT_SECONDS
        return time.monotonic() - self._ended_at < CACHE_SECONDS

    def findings(self, *, unanswered: Finding) -> list[Finding]:
        """Return the findings, or `unanswered` if the probe has timed out."""
        self.join(max(0.0, self._deadline - time.monotonic()))
        return [unanswered] if self._found is None else self._found


_probes: dict[str, _Probe] = {}
_probes_lock = Lock()


def _started(name: str, collect: Callable[[], list[Finding]]) -> _Probe:
    """Return the current probe of that name, or start one: callers share one thread and one connection."""
    with _probes_lock:
        probe = _probes.get(name)
        if probe is None or not probe.is_current:
            probe = _probes[name] = _Probe(collect)
            probe.start()
        return probe


def _check_database(specs: Sequence[JobSpec]) -> Iterator[Finding]:
    missing = _missing_migrations()
    if missing:
        yield _migrations_missing(f"Migrations are not applied: {', '.join(missing)}.", database.migrate_hint())
    try:
        # Read all before the first is yielded: after an error there are none.
        yield from [*_overdue(specs), *_late_runs()]
    except Error:
        if not missing:
            raise


def _missing_migrations() -> list[str]:
    """Return the names of this app's migrations that are not applied to the database of the run records."""
    label = JobRun._meta.app_label
    module, _ = MigrationLoader.migrations_module(label)
    if module is None:  # The setting MIGRATION_MODULES disables them.
        return []
    names = {name for _, name, is_package in iter_modules(import_module(module).__path__) if not is_package}
    applied = MigrationRecorder(connections[database.database_alias()]).applied_migrations()
    return sorted(name for name in names if (label, name) not in applied)


def _migrations_missing(message: str, hint: str) -> Finding:
    return Finding(code="migrations_missing", message=message, hint=hint)


def _overdue(specs: Sequence[JobSpec]) -> Iterator[Finding]:
    for schedule in due_schedules(specs):
        if since := schedule.overdue_since:
            yield Finding(
                code="schedule_overdue",
                message=f"{schedule.scheduler_job} was due at {since:%F %T} UTC and has not started a run since.",
                hint="It may be paused: `manage.py sync_cloudrun_schedules --dry-run` reports that.",
                command=schedule.command,
                scheduler_job=schedule.scheduler_job,
                since=since,
            )


def _late_runs() -> Iterator[Finding]:
    """Yield a finding for each job with runs that `reconcile` must dispatch or settle."""
    runs = JobRun.objects.filter(environment=conf.load().environment)
    reserved = Q(trigger=Trigger.RESERVE, status=Status.PENDING, scheduled_for__lt=Now() - RECONCILE_LIMIT)
    late = runs.silent(RECONCILE_LIMIT) | runs.filter(reserved)
    hint = "Run `manage.py cloudrun_jobs reconcile`; CLOUDRUN_JOBS['RECONCILE'] schedules it."
    for code, found, work in (
        ("reconciler_late", late, "no longer reporting, and not settled"),
        ("runs_waiting", runs.unsent(), "waiting for dispatch: the dispatcher has died or given up"),
    ):
        for command, count in _by_command(found):
            message = f"{command}: {count} run{'s' * (count > 1)} {work}."
            yield Finding(code=code, message=message, hint=hint, command=command)


def _by_command(runs: QuerySet[JobRun]) -> Iterable[tuple[str, int]]:
    return runs.order_by("command").values_list("command").annotate(count=Count("pk"))


def _check_locks() -> Iterator[Finding]:
    for message in locks.current().inspect():
        if message.id == "cloudrun_jobs.W021":
            yield _migrations_missing(message.msg, message.hint or "")
