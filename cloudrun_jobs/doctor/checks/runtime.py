"""Check the database, the lock server, and the records of runs."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import timedelta
from typing import Any

from django.db import connections

from cloudrun_jobs import conf, locks
from cloudrun_jobs.doctor.checks.check import Check
from cloudrun_jobs.doctor.checks.schedules import paused
from cloudrun_jobs.doctor.commands import gcloud, manage
from cloudrun_jobs.doctor.facts import Facts
from cloudrun_jobs.doctor.findings import Finding
from cloudrun_jobs.exceptions import CloudRunJobsError
from cloudrun_jobs.models import JobRun, Status
from cloudrun_jobs.models.functions import Now
from cloudrun_jobs.runs import database, health

CLOCK_TOLERANCE = timedelta(seconds=5)
RATE_LIMIT_PERIOD = timedelta(hours=24)
# How HTTP clients report status 429.
RATE_LIMIT = re.compile(r"\b429\b|too many requests", re.IGNORECASE)
FAULTS = (
    "database_unreachable",
    "lock_server_unreachable",
    "migrations_missing",
    "schedule_overdue",
    "reconciler_late",
    "runs_waiting",
)


def faults(facts: Facts, _: None) -> Iterator[Finding]:
    """Yield the findings of the HTTP API's health check, except those of schedules that were paused by hand."""
    paused_commands = _paused_commands(facts)
    # The tables of the locks and of the records may both be missing; one command creates both.
    unique = {fault if fault.code != "migrations_missing" else None: fault for fault in facts.faults()}
    for fault in unique.values():
        if fault.code != "schedule_overdue" or fault.command not in paused_commands:
            yield Finding(fault.code, fault.command, fault.message, _fix(facts, fault))


def _paused_commands(facts: Facts) -> set[str]:
    with suppress(CloudRunJobsError):  # Other checks report it.
        return {command for command, _ in paused(facts)}
    return set()


def _fix(facts: Facts, fault: health.Finding) -> str:
    if fault.code == "schedule_overdue":
        name = fault.scheduler_job
        return gcloud("scheduler", "jobs", "run", name, location=facts.scheduler_region, project=facts.project)
    fixes = {
        "database_unreachable": manage("check", "--database", database.database_alias()),
        "lock_server_unreachable": _lock_server_fix(),
        "migrations_missing": manage("migrate", f"--database={database.database_alias()}"),
    }
    return fixes.get(fault.code, manage("cloudrun_jobs", "reconcile"))


def _lock_server_fix() -> str:
    """Return a command that reaches the lock server, as the containers do; it shows the error."""
    if (server := _redis()) is None:
        return manage("check", "--database", database.database_alias())
    setting = conf.setting_name("LOCKS", "OPTIONS", "url")
    return f"In the settings: {setting} = a server that answers `{_redis_cli(server, 'ping')}`"


def _redis() -> Mapping[str, Any] | None:
    """Return how the lock backend connects to Redis; None if it uses another server."""
    pool = getattr(getattr(locks.current(), "client", None), "connection_pool", None)
    return pool and pool.connection_kwargs


def _redis_cli(server: Mapping[str, Any], *words: str) -> str:
    """Return a command line for the server; redis-cli takes the password from REDISCLI_AUTH."""
    address = ["-s", server["path"]] if "path" in server else ["-h", server["host"], "-p", str(server["port"])]
    user = ["--user", server["username"]] if server.get("username") else []
    return shlex.join(["redis-cli", *address, *user, *words])


def locks_private(facts: Facts, _: None) -> Iterator[Finding]:
    backend = locks.current()
    if not backend.is_shared:
        message = f"{type(backend).__name__} keeps locks in one process: each container has its own."
        setting = f"{conf.setting_name('LOCKS')} = {{'BACKEND': 'cloudrun_jobs.locks.database.DatabaseLocks'}}"
        yield Finding("locks_private", None, message, f"In the settings: {setting}")


def records_private(facts: Facts, _: None) -> Iterator[Finding]:
    alias = database.database_alias()
    # The containers of a local server are processes of this machine.
    if connections[alias].vendor == "sqlite" and facts.backend.endpoint is None:
        message = "The run records are in SQLite: each container has its own."
        fix = f"In the settings: DATABASES['{alias}'] = a server such as PostgreSQL, which all containers reach"
        yield Finding("records_private", None, message, fix)


def locks_evicted(facts: Facts, _: None) -> Iterator[Finding]:
    if _is_reachable(facts):
        for found in locks.current().inspect():
            if found.id == "cloudrun_jobs.W020":
                server = _redis() or {"host": "HOST", "port": "PORT"}
                fix = _redis_cli(server, "config", "set", "maxmemory-policy", "noeviction")
                yield Finding("locks_evicted", None, found.msg, fix)


def clock_differs(facts: Facts, _: None) -> Iterator[Finding]:
    offset = facts.clock_offset() if _is_reachable(facts) else None
    if offset is not None and abs(offset) > CLOCK_TOLERANCE:
        seconds = offset.total_seconds()
        direction = "ahead of" if seconds > 0 else "behind"
        message = f"The clock of the lock server is {abs(seconds):.0f} seconds {direction} this machine's."
        yield Finding("clock_differs", None, message, "sudo timedatectl set-ntp true")


def _is_reachable(facts: Facts) -> bool:
    return not any(fault.code in {"lock_server_unreachable", "database_unreachable"} for fault in facts.faults())


def rate_limited(facts: Facts, _: None) -> Iterator[Finding]:
    """Containers share outgoing addresses with other customers, and services limit requests by address."""
    if not _is_reachable(facts) or any(fault.code == "migrations_missing" for fault in facts.faults()):
        return
    failed = JobRun.objects.filter(
        environment=facts.backend.settings.environment,
        command__in=[spec.command for spec in facts.specs()],
        status=Status.FAILED,
        finished_at__gt=Now() - RATE_LIMIT_PERIOD,
    )
    by_command: dict[str, int] = {}
    for command, error in failed.values_list("command", "error_message"):
        if RATE_LIMIT.search(error):
            by_command[command] = by_command.get(command, 0) + 1
    for command, count in sorted(by_command.items()):
        message = (
            f"{command}: {count} run{'s' * (count > 1)} failed with HTTP status 429 in the last 24 hours. Its"
            " containers share their outgoing addresses with other projects."
        )
        fix = (
            f"In the class of {command}: vpc = {{'network': 'default', 'subnetwork': 'default', 'egress':"
            " 'all-traffic'}, with Cloud NAT and an address of its own in that network"
        )
        yield Finding("rate_limited", command, message, fix)


CHECKS = (
    Check(FAULTS, faults),
    Check(("locks_private",), locks_private),
    Check(("records_private",), records_private),
    Check(("locks_evicted",), locks_evicted),
    Check(("clock_differs",), clock_differs),
    Check(("rate_limited",), rate_limited),
)
