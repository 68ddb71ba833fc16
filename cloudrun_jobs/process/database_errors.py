"""Classify database errors: after a transient error a retry may succeed, after a permanent one it cannot.

The drivers' exception classes do not distinguish them: a read-only PostgreSQL raises an `InternalError`, a MySQL
that denies access an `OperationalError`.
"""

from __future__ import annotations

import re

from django.db import DataError, Error, IntegrityError, NotSupportedError, ProgrammingError

MISSING_TABLE = frozenset({"42P01", 1146})
MISSING_COLUMN = frozenset({"42703", 1054})
SQLITE_MISSING_COLUMN = re.compile("no such column|has no column named")

PERMANENT_CLASSES = (ProgrammingError, IntegrityError, DataError, NotSupportedError)

# Errors of other classes: access is denied, a database or column is missing, a value is not accepted.
PERMANENT_CODES = frozenset(
    {"28000", "28P01", 1044, 1045, 1049, 1054, 1142, 1143, 1227, 1364, 1366, 1370, 1698}
    | {"SQLITE_ERROR", "SQLITE_PERM", "SQLITE_AUTH", "SQLITE_CORRUPT", "SQLITE_NOTADB"}
)

# Errors of the classes above that a new connection does not have: those of prepared statements.
TRANSIENT_CODES = frozenset({"26000", "42P05", "0A000"})


def error_code(error: Error) -> object:
    """Return the server's code, or None: a number of MySQL, an SQLSTATE of PostgreSQL, a name of SQLite."""
    if error.args and isinstance(error.args[0], int):
        return error.args[0]
    cause = error.__cause__
    names = ("sqlstate", "pgcode", "sqlite_errorname")
    return next((code for name in names if (code := getattr(cause, name, None))), None)


def is_transient(error: Error) -> bool:
    """Return True if a later attempt, on a new connection, may succeed."""
    code = error_code(error)
    return code in TRANSIENT_CODES or not (isinstance(error, PERMANENT_CLASSES) or code in PERMANENT_CODES)


def is_missing_table(error: Error) -> bool:
    return error_code(error) in MISSING_TABLE or str(error).startswith("no such table")


def is_outdated_schema(error: Error) -> bool:
    """Return True if a table or a column is missing."""
    is_missing_column = error_code(error) in MISSING_COLUMN or SQLITE_MISSING_COLUMN.search(str(error))
    return is_missing_table(error) or bool(is_missing_column)
