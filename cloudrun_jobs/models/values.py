"""What is computed from the rows of the runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

from cloudrun_jobs.models.statuses import Status


class Progress(NamedTuple):
    """How far a job is."""

    done: int
    total: int | None = None
    text: str = ""

    @classmethod
    def combined(cls, told: Sequence[Progress], *, of: int) -> Progress | None:
        """Add up what tasks told, the latest last. There is a total once all `of` them told theirs."""
        if not told:
            return None
        totals = [progress.total for progress in told if progress.total is not None]
        total = sum(totals) if len(totals) == of else None
        text = next((progress.text for progress in reversed(told) if progress.text), "")
        return cls(sum(progress.done for progress in told), total, text)

    def __str__(self) -> str:
        count = f"{self.done:,}" if self.total is None else f"{self.done:,} of {self.total:,}"
        return f"{count}: {self.text}" if self.text else count


class Stats(NamedTuple):
    """How a job fares."""

    counts: Mapping[Status, int]  # Of its newest runs; statuses that none of them has are left out.
    last_success: datetime | None  # When the latest run that succeeded ended, however long ago.
    last_failure: datetime | None  # The same of a run that failed or was lost.


def storable(text: str) -> str:
    """Return the text with what databases refuse, NUL and half surrogates, written out."""
    return text.replace("\0", "\\x00").encode(errors="backslashreplace").decode()
