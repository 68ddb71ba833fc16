"""Write the tracebacks of uncaught exceptions."""

from __future__ import annotations

import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import redirect_stderr
from io import StringIO
from types import TracebackType

from cloudrun_jobs.logs import context
from cloudrun_jobs.terminal import escape


def log_uncaught() -> None:
    """Write each uncaught exception of the process and of its threads as one entry, with the traceback as a field.

    If stderr is a terminal or has been replaced, the exception is printed as before.
    """
    print_exception, print_exception_of_thread = sys.excepthook, threading.excepthook

    def log(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if issubclass(kind, KeyboardInterrupt) or not _write(error, ""):
            print_exception(kind, error, trace)

    def log_of_thread(args: threading.ExceptHookArgs) -> None:
        name = f" in thread {args.thread.name}" if args.thread is not None else ""
        is_exit = issubclass(args.exc_type, SystemExit)
        if is_exit or args.exc_value is None or not _write(args.exc_value, name):
            print_exception_of_thread(args)

    sys.excepthook, threading.excepthook = log, log_of_thread


def _write(error: BaseException, where: str) -> bool:
    """Return True if the exception was written as an entry."""
    from cloudrun_jobs.logs import entries, output  # Most processes end without an uncaught exception.

    if output.own_stream("stderr", sys.stderr) is None:
        return False
    text = entries.text_of(error)
    message = f"Uncaught {type(error).__name__}{where}{': ' if text else ''}{escape(text)}"
    fields = {"severity": "ERROR", "message": message, **context.fields()}
    fields["stack_trace"] = entries.stack_trace_of(error)
    if error.__traceback__ is not None:
        *_, (frame, line) = traceback.walk_tb(error.__traceback__)
        fields[entries.LOCATION] = entries.location(frame.f_code.co_filename, line, frame.f_code.co_name)
    output.write_line(sys.stderr, entries.encode(fields))
    return True


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
