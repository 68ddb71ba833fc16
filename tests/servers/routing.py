"""Sends the app's tables to one of the databases under test."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class To:
    """A router for `settings.DATABASE_ROUTERS`."""

    alias: str

    def db_for_read(self, model: type, **hints: Any) -> str:
        return self.alias

    db_for_write = db_for_read
