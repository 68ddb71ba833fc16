"""What a container of a job is started with, checked where it is asked for."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from cloudrun_jobs import argv
from cloudrun_jobs.exceptions import InvalidArguments
from cloudrun_jobs.execution import locking
from cloudrun_jobs.spec import JobSpec

if TYPE_CHECKING:
    from cloudrun_jobs.command import CloudRunJobs


def arguments(
    job: CloudRunJobs, spec: JobSpec, args: Sequence[Any], options: Mapping[str, Any], told: Mapping[str, str]
) -> tuple[str, ...]:
    """Return what follows `manage.py`, for a container that is `told` these variables as well.

    Raises `InvalidArguments` for what the command would not take, or could not get unchanged.
    """
    parser = job._parser()
    try:
        written = argv.serialise(parser, args, options)
    except InvalidArguments as error:
        raise _about(spec, error) from None
    return checked(job, spec, (spec.command, *written), told, parser)


def checked(
    job: CloudRunJobs,
    spec: JobSpec,
    written: tuple[str, ...],
    told: Mapping[str, str],
    parser: ArgumentParser | None = None,
) -> tuple[str, ...]:
    """Return the arguments unless they would fail in the container."""
    try:
        locking.check_arguments(job, spec, argv.parse(parser or job._parser(), written[1:]))
        argv.check_limits(written, {**spec.env_vars, **told})
    except InvalidArguments as error:
        raise _about(spec, error) from None
    return written


def takes_a_key(job: CloudRunJobs) -> bool:
    """Say whether the command has an option named as the one that delay() keeps to itself."""
    return "idempotency_key" in option_names(job)


def option_names(job: CloudRunJobs) -> frozenset[str]:
    """Return the names by which `run()` may get options, those of sub-commands included."""
    return argv.dests(job._parser()) | {"args"}


def _about(spec: JobSpec, error: InvalidArguments) -> InvalidArguments:
    return InvalidArguments(f"{spec.command}: {error.args[0]}", hint=error.hint)
