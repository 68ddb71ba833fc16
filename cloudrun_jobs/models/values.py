"""Values computed from run records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple


class Progress(NamedTuple):
    """The progress of a run or of a task."""

    done: int
    total: int | None = None
    text: str = ""

    @classmethod
    def combined(
        cls, reports: Sequence[Progress], *, task_count: int, items: int | None = None
    ) -> Progress | None:
        """Add up the tasks' reports, oldest first. The total is None until every task has reported one.

        `items` is the total if no task reports one, because the tasks claim the items of a run.
        """
        if not reports:
            return None
        totals = [report.total for report in reports if report.total is not None]
        total = combined_total(sum(totals), len(totals), task_count=task_count, items=items)
        text = next((report.text for report in reversed(reports) if report.text), "")
        return cls(sum(report.done for report in reports), total, text)

    def __str__(self) -> str:
        count = f"{self.done:,}" if self.total is None else f"{self.done:,} of {self.total:,}"
        return f"{count}: {self.text}" if self.text else count


def combined_total(total: int, reported: int, *, task_count: int, items: int | None) -> int | None:
    """Return the total of a run, `reported` of whose tasks have reported this total; None if it is not known."""
    return total if reported == task_count else None if reported else items


class Claims(NamedTuple):
    """The counts of a run's claimed items, by their state."""

    done: int
    failed: int  #: Items that have failed, and are not retried.
    left: int


class Stats(NamedTuple):
    """The recent outcomes of a job."""

    #: The number of its newest runs by status, without zeros. A newer release may have recorded other statuses.
    counts: Mapping[str, int]
    last_success: datetime | None  #: The end of the latest run that succeeded, however old.
    last_failure: datetime | None  #: The end of the latest run that failed or was lost, however old.
    p50: timedelta | None  #: The duration that half of its newest runs did not exceed.
    p95: timedelta | None  #: The duration that 95 % of its newest runs did not exceed.


NO_STATS = Stats({}, None, None, None, None)


def storable(text: str) -> str:
    """Return the text with the characters that databases reject, NUL and lone surrogates, escaped."""
    return text.replace("\0", "\\x00").encode(errors="backslashreplace").decode()
