"""The cursor of a page of runs: where the next page begins, newest first."""

from __future__ import annotations

import base64
import binascii
from datetime import UTC, datetime
from typing import NamedTuple
from uuid import UUID


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
        except (ValueError, binascii.Error):
            cursor = None
        if cursor is None or cursor.created_at.tzinfo is None or cursor.encode() != text:
            raise ValueError("Expected the value of `next` of an earlier page")
        return cursor
