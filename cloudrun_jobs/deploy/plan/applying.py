"""Apply a plan, several changes at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Protocol

from cloudrun_jobs.deploy.plan.planning import Change, Existing
from cloudrun_jobs.exceptions import ServiceError

MAX_WORKERS = 8


class Store(Protocol):
    """Reads and writes resources of one kind. A write returns a remark for the report, or ""."""

    def list(self) -> Sequence[Existing]: ...
    def create(self, change: Change) -> str: ...
    def update(self, change: Change) -> str: ...
    def delete(self, change: Change) -> str: ...


Report = Callable[[Change, str, ServiceError | None], object]


def apply(changes: Sequence[Change], store: Store, report: Report) -> None:
    """Apply the changes, and report each with its remark or its error.

    After a failure the other changes are applied, and another sync can complete the plan.
    """
    pool = ThreadPoolExecutor(MAX_WORKERS)
    try:
        futures = {pool.submit(getattr(store, change.action), change): change for change in changes}
        for future in as_completed(futures):
            try:
                report(futures[future], future.result(), None)
            except ServiceError as error:
                report(futures[future], "", error)
    finally:
        pool.shutdown(cancel_futures=True)  # After an interrupt no further change is started.
