"""Build and validate the arguments of a job's container."""

from __future__ import annotations

import copy
from argparse import ArgumentParser
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from cloudrun_jobs import argv
from cloudrun_jobs.argv import reading
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
    try:
        arguments = argv.serialise(parser, args, options)
    except InvalidArguments as error:
        raise _with_command(job, error) from None
    return validate(job, (job.command_name, *arguments), env, parser)


def validate(
    job: JobCommand, arguments: tuple[str, ...], env: Mapping[str, str], parser: ArgumentParser | None = None
) -> tuple[str, ...]:
    """Return the arguments. Raises `InvalidArguments` if they would fail in the container."""
    spec = job.spec
    try:
        starting, parser = copy.copy(job), parser or argv.parser_of(job)
        reading.remember(starting, parser)
        options = argv.parse(parser, arguments[1:])
        tuple(required_locks(spec, options, starting.get_lock_key))
        argv.check_limits(arguments, {**spec.env_vars, **env})
    except InvalidArguments as error:
        raise _with_command(job, error) from None
    return arguments


def has_idempotency_key_option(job: JobCommand) -> bool:
    """Return True if an option of the command has the name of `delay()`'s own parameter."""
    return "idempotency_key" in option_names(job)


def option_names(job: JobCommand) -> frozenset[str]:
    """Return the names of the options that `run()` may get, including those of subcommands."""
    return argv.dests(argv.parser_of(job)) | {"args"}


def _with_command(job: JobCommand, error: InvalidArguments) -> InvalidArguments:
    return InvalidArguments(f"{job.command_name}: {error.args[0]}", hint=error.hint)
