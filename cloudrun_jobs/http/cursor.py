"""Read a page of runs, newest first, and the cursor of the next one."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple
from uuid import UUID

from django.db.models import Q

from cloudrun_jobs.http.query import MAX_YEAR, MIN_YEAR
from cloudrun_jobs.models import JobRun
from cloudrun_jobs.models.querysets import JobRunQuerySet

PAGE = 100  # runs
LOOKUPS = {"since": "created_at__gte", "until": "created_at__lt"}


class Cursor(NamedTuple):
    """The last run of a page."""

    created_at: datetime
    run_id: UUID

    def encode(self) -> str:
        text = f"{self.created_at.astimezone(UTC).isoformat()} {self.run_id.hex}"
        return base64.urlsafe_b64encode(text.encode()).rstrip(b"=").decode()

    @classmethod
    def decode(cls, text: str) -> Cursor:
        """Return the cursor. Raises `ValueError` for anything that `encode()` does not return."""
        try:
            padded = text.encode("ascii") + b"=" * (-len(text) % 4)
            created_at, run_id = base64.b64decode(padded, altchars=b"-_", validate=True).decode("ascii").split(" ")
            cursor = cls(datetime.fromisoformat(created_at), UUID(hex=run_id))
            is_own = cursor.created_at.tzinfo is not None and cursor.encode() == text
        except (ValueError, OverflowError, binascii.Error):
            is_own = False
        if not (is_own and MIN_YEAR <= cursor.created_at.year <= MAX_YEAR):
            raise ValueError("Expected the value of `next` of an earlier page")
        return cursor

    def following(self, runs: JobRunQuerySet) -> JobRunQuerySet:
        """Return the runs that follow this one, newest first."""
        # The first condition is for the index.
        runs = runs.filter(created_at__lte=self.created_at)
        return runs.filter(Q(created_at__lt=self.created_at) | Q(pk__lt=self.run_id))


def read_page(
    runs: JobRunQuerySet, filters: Mapping[str, Any], cursor: Cursor | None
) -> tuple[list[JobRun], str | None]:
    """Return a page of the runs that meet the filters, and the cursor of the next page as text; None at the end.

    The filters are fields, "since" and "until".
    """
    runs = runs.order_by("-created_at", "-pk")
    if cursor is not None:
        runs = cursor.following(runs)
    found = list(runs.filter(**{LOOKUPS.get(name, name): value for name, value in filters.items()})[: PAGE + 1])
    page, more = found[:PAGE], found[PAGE:]
    return page, Cursor(page[-1].created_at, page[-1].pk).encode() if more else None
