"""The exit statuses of `manage.py cloudrun_jobs`, and the errors that cause them."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from django.core.management.base import CommandError
from django.db import Error

from cloudrun_jobs.exceptions import (
    CloudRunJobsError,
    InvalidArguments,
    InvalidJob,
    InvalidSettings,
    SecretError,
    ServiceError,
)
from cloudrun_jobs.runs import database
from cloudrun_jobs.terminal import escape

FAILED = 1  # A run or a check failed, there is drift, or a name is unknown.
ERROR = 2  # The command line, the settings or the credentials are wrong, or a service failed.
INTERRUPTED = 130  # Ctrl-C
BROKEN_PIPE = 141  # The reader of the output has closed it, as `head` does.

ERRORS = (InvalidArguments, InvalidJob, InvalidSettings, SecretError, ServiceError)


@contextmanager
def escaped_errors() -> Iterator[None]:
    """Escape the text of a `CommandError`, which Django prints."""
    try:
        yield
    except CommandError as error:
        error.args = (escape(str(error)),)
        raise


@contextmanager
def exits() -> Iterator[None]:
    """Turn every error into a `CommandError` of one line with its exit status."""
    try:
        with escaped_errors():
            yield
    except CloudRunJobsError as error:
        raise CommandError(escape(str(error)), returncode=status_of(error)) from error
    except Error as error:
        message = f"The database {database.database_alias()!r} failed: {error}"
        raise CommandError(escape(message.rstrip()), returncode=FAILED) from error
    except KeyboardInterrupt:
        raise CommandError("Interrupted.", returncode=INTERRUPTED) from None
    except BrokenPipeError:
        _discard_output()
        sys.exit(BROKEN_PIPE)
    except OSError as error:
        _discard_output()
        raise CommandError(escape(f"{type(error).__name__}: {error}"), returncode=ERROR) from error


@contextmanager
def errors_reported_once() -> Iterator[None]:
    """Keep Python's last resort from printing an error that `exits()` reports."""
    handler = logging.lastResort  # For loggers without a handler.
    if handler is None:
        yield
        return
    handler.addFilter(_is_not_raised)
    try:
        yield
    finally:
        handler.removeFilter(_is_not_raised)


def _is_not_raised(record: logging.LogRecord) -> bool:
    if record.name.startswith("google."):
        return False
    # As an error, the record is of a dispatch whose error is not raised.
    return getattr(record, "action", "") != "dispatch_failed" or record.levelno >= logging.ERROR


def status_of(error: CloudRunJobsError) -> int:
    """Return the exit status after an error of the package."""
    return ERROR if isinstance(error, ERRORS) else FAILED


def _discard_output() -> None:
    """Write what is buffered nowhere: Python flushes stdout at the exit, which would fail again."""
    with suppress(OSError, ValueError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
