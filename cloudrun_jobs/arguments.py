"""What a schedule, or a job that is started without arguments, passes to `manage.py`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from . import argv, guard
from .command import CloudRunJobs
from .exceptions import InvalidArguments
from .spec import JobSpec


def arguments(
    job: CloudRunJobs, spec: JobSpec, options: Mapping[str, Any], told: Mapping[str, str]
) -> tuple[str, ...]:
    """Write options by the road of `delay()`, for a container that is `told` these variables as well."""
    parser = job._parser()
    try:
        written = (spec.command, *argv.serialise(parser, (), options))
        guard.check_arguments(job, spec, argv.parse(parser, written[1:]))
        argv.check_limits(written, {**spec.env_vars, **told})
    except InvalidArguments as error:
        raise InvalidArguments(f"{spec.command}: {error.args[0]}", hint=error.hint) from None
    return written
