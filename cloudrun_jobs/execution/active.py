"""The active run of a command instance."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from cloudrun_jobs.exceptions import LeaseLost
from cloudrun_jobs.execution import lease_watch
from cloudrun_jobs.spec.overrides import NO_OVERRIDES

if TYPE_CHECKING:
    from cloudrun_jobs.environ import CloudRunTask
    from cloudrun_jobs.execution.attempt import Attempt
    from cloudrun_jobs.execution.claim import Invocation
    from cloudrun_jobs.execution.progress import ProgressReporter
    from cloudrun_jobs.execution.sharding.claims import ClaimLoop
    from cloudrun_jobs.execution.termination import Termination
    from cloudrun_jobs.locks import Lease
    from cloudrun_jobs.models import JobRun
    from cloudrun_jobs.runs.reruns import Rerun
    from cloudrun_jobs.spec.command import JobCommand


class ActiveRun:
    """The state of a run that `progress()`, `lease` and `check_lease()` of its command use."""

    attempt: Attempt | None = None  # Set during run().
    termination: Termination | None = None
    leases: Sequence[Lease] = ()
    progress: ProgressReporter | None = None
    claims: ClaimLoop | None = None  # The latest loop over claim().
    verbosity: int = 1
    result: Any = None  # The result of the run, in JSON form.
    failed_tasks: Sequence[int] = ()  # Their indexes, during reduce().

    def __init__(self, run: JobRun | None = None, *, is_requested: bool = False) -> None:
        self.run = run  # The record, as last known in this process.
        self.is_requested = is_requested  # Whether this process requested the run, which has yet to start.
        self.trigger: Invocation | None = None  # Of the HTTP request that is to run the job, and waits for it.
        self.overrides = NO_OVERRIDES  # Of the runs that this command instance requests.
        self._calls: Counter[str] = Counter()  # The number of calls of shard() and of claim().
        self.repeats: Rerun | None = None  # What the next run of this command instance repeats.
        self.protected: list[str] = []  # The values of its secret options, which are masked.
        self.task: CloudRunTask | None = None  # Of several tasks that run one after the other in this process.
        self._loss_is_raised = False

    def next_call(self, kind: str) -> int:
        """Return the number of this call of `shard()` or `claim()` in the run, from 0.

        Each element of `delay_many()` has its own numbers, and so its own lists.
        """
        number = self._calls[kind]
        self._calls[kind] += 1
        if self.attempt is not None and self.attempt.is_element:
            share = self.attempt.share
            return number * share.count + (share.index or 0)
        return number

    def raise_if_interrupted(self) -> None:
        """Raise `JobInterrupted` or `LeaseLost`, once each, if no signal handler of this thread does."""
        if self.attempt is None or self.termination is None:
            return
        # For other runs, Cloud Run enforces the timeout.
        self.termination.raise_if_requested(enforces_timeout=self.trigger is not None)
        if self._loss_is_raised or lease_watch.is_signalled():
            return
        try:
            for lease in self.leases:
                lease.check()
        except LeaseLost:
            self._loss_is_raised = True
            raise


@contextmanager
def activated(job: JobCommand) -> Iterator[ActiveRun]:
    """Make the starting run the command's active run; afterwards, restore a run that called this command."""
    outer: ActiveRun | None = job._active
    if outer is not None and outer.is_requested:
        outer.is_requested = False
        yield outer
        return
    job._active = ActiveRun()
    if outer is not None:
        job._active.overrides = outer.overrides
    try:
        yield job._active
    finally:
        if outer is not None and outer.attempt is not None:
            job._active = outer
