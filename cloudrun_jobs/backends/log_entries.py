"""Log entries of a run, and queries for them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

#: The severities of Cloud Logging, by their numbers there.
SEVERITIES: Mapping[str, int] = {
    "DEFAULT": 0,
    "DEBUG": 100,
    "INFO": 200,
    "NOTICE": 300,
    "WARNING": 400,
    "ERROR": 500,
    "CRITICAL": 600,
    "ALERT": 700,
    "EMERGENCY": 800,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class LogEntry:
    """One entry of a run's log."""

    id: str  #: Distinguishes entries of the same run.
    time: datetime
    severity: str
    text: str  #: The message, and the traceback below it.
    task: int | None = None
    attempt: int | None = None
    received: datetime | None = None  #: When the service received it, by the service's clock.


@dataclass(frozen=True, slots=True, kw_only=True)
class LogQuery:
    """Which entries to read."""

    task: int | None = None
    severity: str = "DEFAULT"  #: The lowest severity.
    since: datetime | None = None
    #: Only entries that the service received after this time, whatever their own time is.
    received_since: datetime | None = None

    def includes(self, entry: LogEntry) -> bool:
        """Return True if the entry matches the query, apart from `received_since`."""
        return (
            (self.task is None or entry.task == self.task)
            and SEVERITIES.get(entry.severity, 0) >= SEVERITIES[self.severity]
            and (self.since is None or entry.time >= self.since)
        )
