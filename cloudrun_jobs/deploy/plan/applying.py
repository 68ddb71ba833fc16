"""Doing what a plan says, several changes at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from typing import Protocol

from cloudrun_jobs.deploy.plan.planning import Change, Existing
from cloudrun_jobs.exceptions import ServiceError

AT_ONCE = 8


class Store(Protocol):
    """Where entries or jobs are kept. What a write returns is a remark to tell, mostly none."""

    def listed(self) -> list[Existing]: ...
    def create(self, change: Change) -> str: ...
    def update(self, change: Change) -> str: ...
    def delete(self, change: Change) -> str: ...


Report = Callable[[Change, str, ServiceError | None], object]


def apply(changes: Sequence[Change], store: Store, report: Report) -> int:
    """Make the changes and report each, with a remark and with what went wrong; return how many failed.

    One that fails does not keep the others from being made, nor a second run from finishing.
    """
    failed = 0
    with _pool() as pool:
        futures = {pool.submit(getattr(store, change.action), change): change for change in changes}
        for future in as_completed(futures):
            error = _service_error(future)
            report(futures[future], "" if error else future.result(), error)
            failed += error is not None
    return failed


@contextmanager
def _pool() -> Iterator[ThreadPoolExecutor]:
    """A pool that, interrupted, begins nothing more."""
    pool = ThreadPoolExecutor(AT_ONCE)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def _service_error(future: Future[str]) -> ServiceError | None:
    error = future.exception()
    if error is None or isinstance(error, ServiceError):
        return error
    raise error
