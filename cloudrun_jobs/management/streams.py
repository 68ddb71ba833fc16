"""Make stdout and stderr accept every text, and report an output that cannot be written."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import TextIOBase

from django.core.management.base import BaseCommand, CommandError, OutputWrapper

BROKEN_PIPE = 141  # The exit status after the reader of the output has closed it, as `head` does.
WRITE_FAILED = 2  # The exit status after the output could not be written.
# Errors of a file or a device without a name. Errors of a connection are not those of the output.
WRITE_ERRORS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF})


class Discarded(TextIOBase):
    """Replaces a stream that was closed before the process started, as by `>&-`."""

    def write(self, text: str, /) -> int:
        return len(text)


@contextmanager
def writable_output(command: BaseCommand) -> Iterator[None]:
    """Prepare the streams, and flush stdout at the end. Raises `CommandError` if the output cannot be written."""
    _replace_closed()
    for stream in (command.stdout, command.stderr):
        _prepare(stream)
    try:
        yield
        command.stdout.flush()
    except BrokenPipeError:
        _discard_output()
        sys.exit(BROKEN_PIPE)
    except OSError as error:
        if error.errno not in WRITE_ERRORS or error.filename is not None:
            raise
        _discard_output()
        message = f"The output cannot be written: {error.strerror}."
        raise CommandError(message, returncode=WRITE_FAILED) from error


def is_utf8(stream: OutputWrapper) -> bool:
    """Return True if the stream can encode every character."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    return encoding.lower().replace("-", "").startswith("utf")


def _replace_closed() -> None:
    """Replace the streams that Python omits because their file descriptors were closed at startup."""
    sys.stdout = sys.stdout or Discarded()
    sys.stderr = sys.stderr or Discarded()


def _prepare(stream: OutputWrapper) -> None:
    if stream._out is None:
        stream._out = Discarded()
    if not is_utf8(stream) and hasattr(stream, "reconfigure"):
        stream.reconfigure(errors="backslashreplace")


def _discard_output() -> None:
    """Discard the buffered output: Python flushes stdout at exit, which would fail again."""
    with suppress(OSError, ValueError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
