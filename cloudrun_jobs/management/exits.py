"""The exit statuses of `manage.py cloudrun_jobs`, and the errors that cause them."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from django.core.management.base import BaseCommand, CommandError
from django.db import Error

from cloudrun_jobs.exceptions import (
    CloudRunJobsError,
    InvalidArguments,
    InvalidJob,
    InvalidSettings,
    SecretError,
    ServiceError,
)
from cloudrun_jobs.management.output import write_message
from cloudrun_jobs.runs import database
from cloudrun_jobs.terminal import escape

FAILED = 1  # A run or a check failed, there is drift, or a name is unknown.
ERROR = 2  # The command line, the settings or the credentials are wrong, or a service failed.
INTERRUPTED = 130  # Ctrl-C

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


@contextmanager
def errors_reported_once() -> Iterator[None]:
    """Prevent Python's last-resort handler from printing an error that `exits()` reports."""
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
    # At level ERROR, the dispatch failed without raising an error.
    return getattr(record, "action", "") != "dispatch_failed" or record.levelno >= logging.ERROR


def raise_together(command: BaseCommand, errors: Iterable[str], *, returncode: int) -> None:
    """Raise `CommandError` if there are errors. If there are several, print each on a line of its own before."""
    texts = [*dict.fromkeys(errors)]
    if len(texts) > 1:
        for text in texts:
            write_message(command, text)
        raise CommandError(f"There are {len(texts)} errors.", returncode=returncode)
    if texts:
        raise CommandError(texts[0], returncode=returncode)


def status_of(error: CloudRunJobsError) -> int:
    """Return the exit status after an error of the package."""
    return ERROR if isinstance(error, ERRORS) else FAILED
