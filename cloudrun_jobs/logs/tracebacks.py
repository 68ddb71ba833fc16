"""Write the tracebacks of uncaught exceptions."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import redirect_stderr
from io import StringIO
from types import TracebackType

from cloudrun_jobs.terminal import escape


def escape_tracebacks() -> None:
    """Escape what the process prints of an uncaught exception: in a container each line is a log entry."""
    print_exception = sys.excepthook

    def print_escaped(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        with redirect_stderr(StringIO()) as printed:
            print_exception(kind, error, trace)
        text = printed.getvalue()
        for raised in _chain(error):
            message = str(raised)
            text = text.replace(f": {message}\n", f": {escape(message)}\n")
            for note in getattr(raised, "__notes__", ()):
                text = text.replace(f"\n{note}\n", f"\n  {escape(str(note))}\n")
        sys.stderr.write(escape(text, keep="\n\t"))

    sys.excepthook = print_escaped


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an exception, its causes and those that it replaced."""
    left, seen = [error], set[int]()
    while left:
        if id(error := left.pop()) not in seen:
            seen.add(id(error))
            yield error
            left += filter(None, (error.__cause__, error.__context__))
