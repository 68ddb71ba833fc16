"""Build and validate the arguments of a job's container."""

from __future__ import annotations

import copy
from argparse import ArgumentParser
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from cloudrun_jobs import argv
from cloudrun_jobs.argv import reading
from cloudrun_jobs.argv.redaction import mask
from cloudrun_jobs.exceptions import InvalidArguments
from cloudrun_jobs.locks.policy import required_locks

if TYPE_CHECKING:
    from cloudrun_jobs.spec.command import JobCommand


def build(
    job: JobCommand,
    args: Sequence[Any],
    options: Mapping[str, Any],
    env: Mapping[str, str],
    parser: ArgumentParser | None = None,
) -> tuple[str, ...]:
    """Return the arguments after `manage.py`, for a container that gets `env` in addition to the job's variables.

    Raises `InvalidArguments` if the command would reject them, or receive other values.
    """
    parser = parser or argv.parser_of(job)
    with _named(job):
        written = argv.serialise(parser, args, options, partial(_check_locks, _reader(job, parser)))
        return _within_limits(job, (job.command_name, *written), env)


def validate(job: JobCommand, arguments: tuple[str, ...], env: Mapping[str, str]) -> tuple[str, ...]:
    """Return the arguments. Raises `InvalidArguments` if they would fail in the container."""
    parser = argv.parser_of(job)
    reader = _reader(job, parser)
    with _named(job):
        _check_locks(reader, argv.parse(parser, arguments[1:]))
        return _within_limits(job, arguments, env)


def _reader(job: JobCommand, parser: ArgumentParser) -> JobCommand:
    """Return a copy of the command that remembers what the parser reads."""
    reader = copy.copy(job)
    reading.remember(reader, parser)
    reading.reading_of(reader).is_request = True
    return reader


def _check_locks(reader: JobCommand, options: Mapping[str, Any]) -> None:
    """Raise `InvalidArguments` or `InvalidJob` if no lock key can be made from the parsed options."""
    tuple(required_locks(reader.spec, options, reader.get_lock_key))


def _within_limits(job: JobCommand, arguments: tuple[str, ...], env: Mapping[str, str]) -> tuple[str, ...]:
    if [*map(mask, arguments)] != [*arguments] or any(mask(value) != value for value in env.values()):
        message = "The arguments or variables contain the value of a secret option of a job that is in progress."
        raise InvalidArguments(message, hint=reading.REFERENCE_HINT)
    argv.check_limits(arguments, {**job.spec.env_vars, **env})
    return arguments


def has_idempotency_key_option(job: JobCommand) -> bool:
    """Return True if an option of the command has the name of `delay()`'s own parameter."""
    return "idempotency_key" in option_names(job)


def option_names(job: JobCommand) -> frozenset[str]:
    """Return the names of the options that `run()` may get, including those of subcommands."""
    return argv.dests(argv.parser_of(job)) | {"args"}


@contextmanager
def _named(job: JobCommand) -> Iterator[None]:
    """Add the command's name to the errors of the block."""
    try:
        yield
    except InvalidArguments as error:
        raise InvalidArguments(f"{job.command_name}: {error.args[0]}", hint=error.hint) from None
