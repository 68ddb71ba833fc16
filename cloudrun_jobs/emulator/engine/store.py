"""The engine's state, under one lock. Resources are stored as the messages of the wire protocol."""

from __future__ import annotations

import secrets
import string
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from cloudrun_jobs.emulator import names
from cloudrun_jobs.emulator.errors import ServiceError, invalid

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from google.cloud import run_v2
    from google.longrunning import operations_pb2

    from cloudrun_jobs.emulator.engine.lifecycle import ExecutionLifecycle

ID_CHARACTERS = string.ascii_lowercase + string.digits
MAX_PAGE_SIZE = 1000
T = TypeVar("T")


@dataclass(slots=True)
class Record:
    """An execution with its tasks, and its lifecycle until it is done."""

    execution: run_v2.Execution
    tasks: list[run_v2.Task]
    operations: list[str]  # The first is RunJob's; CancelExecution and DeleteExecution add theirs.
    error: Any = None  # google.rpc.Status of a failed operation.
    lifecycle: ExecutionLifecycle | None = None
    deleted: bool = False

    @property
    def done(self) -> bool:
        return self.lifecycle is None


Saved: TypeAlias = "run_v2.Job | run_v2.Service | run_v2.Revision | run_v2.WorkerPool | Record"


@dataclass(slots=True)
class Store:
    jobs: dict[str, run_v2.Job] = field(default_factory=dict)
    services: dict[str, run_v2.Service] = field(default_factory=dict)
    revisions: dict[str, run_v2.Revision] = field(default_factory=dict)  # In the order of their creation.
    worker_pools: dict[str, run_v2.WorkerPool] = field(default_factory=dict)
    executions: dict[str, Record] = field(default_factory=dict)
    operations: dict[str, Record | operations_pb2.Operation] = field(default_factory=dict)
    # Held for every change; notified when an execution starts or ends.
    changed: threading.Condition = field(default_factory=lambda: threading.Condition(threading.RLock()))
    closed: bool = False  # Calls that wait for an operation return.
    # Called with each changed resource, to persist it.
    save: Callable[[Saved], None] = lambda _: None
    remove: Callable[[str], None] = lambda _: None

    def executions_of(self, job_name: str) -> list[Record]:
        prefix = f"{job_name}/executions/"
        return [record for name, record in self.executions.items() if name.startswith(prefix)]

    def drop_execution(self, name: str) -> None:
        record = self.executions.pop(name)
        for operation in record.operations:
            self.operations.pop(operation, None)
        self.remove(name)


def random_id(length: int = 5) -> str:
    return "".join(secrets.choice(ID_CHARACTERS) for _ in range(length))


def paginate(
    items: Iterable[T], page_size: int, page_token: str, maximum: int = MAX_PAGE_SIZE
) -> tuple[list[T], str]:
    """Return one page of a list and the token of the next page, which is its start index."""
    if page_size < 0 or (page_token and not page_token.isdecimal()):
        raise invalid(f"Invalid page_size {page_size} or page_token {page_token!r}.")
    start, all_items = int(page_token or 0), list(items)
    end = start + min(page_size or maximum, maximum)
    return all_items[start:end], str(end) if end < len(all_items) else ""


def check_etag(etag: str, resource: Any) -> None:
    """Raise ABORTED if a request is for another version of a resource; without an etag, it is for any."""
    given, current = etag.strip('"'), resource.etag.strip('"')
    if given and given != current:
        raise ServiceError(
            "ABORTED",
            f"Conflict for resource '{names.short(resource.name)}': version '{given}' was specified "
            f"but current version is '{current}'.",
        )


def placed(name: str, *collections: str) -> str:
    """Return the validated name of one resource, or of the parent of a new one: it has a region, not ``-``."""
    if names.location_of(validated(name, *collections)).region == "-":
        raise ServiceError("UNIMPLEMENTED", "Operation is not implemented, or supported, or enabled.")
    return name


def validated(name: str, *collections: str) -> str:
    """Return the name, or raise INVALID_ARGUMENT if it does not have this form."""
    try:
        return names.check(name, *collections)
    except names.MalformedName as error:
        raise invalid(f"Invalid resource name: {error}.") from error
