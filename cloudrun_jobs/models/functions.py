"""The database server's clock."""

from __future__ import annotations

from typing import Any

from django.db.models import functions


class Now(functions.Now):
    """Django's `Now()`, in UTC where the server's or the session's time zone is another.

    Django writes times in UTC, but sets no time zone for MySQL's session, in which CURRENT_TIMESTAMP is.
    """

    def as_mysql(self, compiler: Any, connection: Any, **extra_context: Any) -> Any:
        return self.as_sql(compiler, connection, template="UTC_TIMESTAMP(6)", **extra_context)
