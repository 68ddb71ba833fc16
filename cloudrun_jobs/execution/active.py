"""The run under way in one command instance."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cloudrun_jobs.execution.attempt import Attempt
    from cloudrun_jobs.execution.progress import ProgressReporter
    from cloudrun_jobs.locks import Lease
    from cloudrun_jobs.models import JobRun
    from cloudrun_jobs.spec.command import JobCommand


@dataclass(slots=True)
class ActiveRun:
    """What a command holds of its run: `progress()`, `lease` and `check_lease()` work on it."""

    run: JobRun | None = None  # The record, as last known in this process.
    is_requested: bool = False  # Whether this process recorded the request and the run has yet to begin.
    attempt: Attempt | None = None  # While run() is called.
    leases: Sequence[Lease] = ()
    progress: ProgressReporter | None = None
    verbosity: int = 1
    result: Any = None  # What run() returned, in JSON form.


@contextmanager
def activated(job: JobCommand) -> Iterator[ActiveRun]:
    """Put the run that begins into the command's slot; a run that called this command comes back afterwards."""
    outer: ActiveRun | None = job._active
    if outer is not None and outer.is_requested:
        outer.is_requested = False
        yield outer
        return
    job._active = ActiveRun()
    try:
        yield job._active
    finally:
        if outer is not None and outer.attempt is not None:
            job._active = outer
