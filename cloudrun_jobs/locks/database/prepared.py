"""Statements, and how a connection is spared from planning the same one again and again.

PostgreSQL takes longer to plan any statement of the locks than to carry it out. It keeps a plan by the statement's
name, for as long as the session lasts. What drivers prepare by themselves has names that count up, which a pooler
in transaction mode mistakes for one another's; here a name stands for one text alone.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from hashlib import sha1
from typing import Any, ClassVar
from weakref import WeakKeyDictionary

from django.db import Error
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.utils import CursorWrapper

PLACEHOLDER = re.compile(r"%\((\w+)\)s")


def code(error: Error) -> object:
    """Return the server's own number of an error: PostgreSQL's is the driver's, MySQL's comes first."""
    cause = error.__cause__
    return getattr(cause, "sqlstate", None) or getattr(cause, "pgcode", None) or next(iter(error.args), None)


class Statement:
    """A text with named placeholders."""

    def __init__(self, text: str) -> None:
        self.text = text

    def run(self, cursor: CursorWrapper, values: Mapping[str, Any]) -> None:
        """Have the server carry it out. More values than it names do no harm."""
        cursor.execute(self.text, values)


class Prepared(Statement):
    """A statement that PostgreSQL plans once for a connection on which it comes often."""

    OFTEN: ClassVar[float] = 3

    # No such name, or it is there already: a pooler gave us another session. Or a migration changed the result.
    NOT_HERE: ClassVar[frozenset[object]] = frozenset({"26000", "42P05", "0A000"})

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._names = list(dict.fromkeys(PLACEHOLDER.findall(text)))
        name = f"cloudrun_jobs_{sha1(text.encode(), usedforsecurity=False).hexdigest()[:16]}"
        numbered = PLACEHOLDER.sub(lambda match: f"${self._names.index(match[1]) + 1}", text)
        self._prepare = f"PREPARE {name} AS {numbered}"
        self._execute = f"EXECUTE {name} ({', '.join(['%s'] * len(self._names))})"
        self._used: WeakKeyDictionary[BaseDatabaseWrapper, float] = WeakKeyDictionary()

    def run(self, cursor: CursorWrapper, values: Mapping[str, Any]) -> None:
        used = self._used.get(cursor.db, 0)
        if used <= self.OFTEN:
            self._used[cursor.db] = used + 1
        if used < self.OFTEN or not self._run_by_name(cursor, values, is_new=used == self.OFTEN):
            super().run(cursor, values)

    def _run_by_name(self, cursor: CursorWrapper, values: Mapping[str, Any], *, is_new: bool) -> bool:
        """Say whether the session knew the name. If not, nothing was done, and it is not asked again."""
        try:
            if is_new:
                cursor.execute(self._prepare)
            cursor.execute(self._execute, [values[name] for name in self._names])
        except Error as error:
            if code(error) not in self.NOT_HERE:
                raise
            self._used[cursor.db] = -math.inf
            return False
        return True
