"""Database functions."""

from __future__ import annotations

from typing import Any

from django.db.models import functions


class Now(functions.Now):
    """The server's time in UTC.

    Django sets no time zone for MySQL sessions, and CURRENT_TIMESTAMP is in the session's time zone.
    """

    def as_mysql(self, compiler: Any, connection: Any, **extra_context: Any) -> Any:
        return self.as_sql(compiler, connection, template="UTC_TIMESTAMP(6)", **extra_context)
