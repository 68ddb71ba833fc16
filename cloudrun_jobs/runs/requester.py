"""The requester that is recorded with a run."""

from __future__ import annotations

import getpass
import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from cloudrun_jobs import environ

MAX_LENGTH = 200  # characters

_requester: ContextVar[str] = ContextVar("cloudrun_jobs_requester", default="")


@contextmanager
def requested_by(name: str) -> Iterator[None]:
    """Record the name as the requester of the runs that the block starts.

    with requested_by(request.user.get_username()):
        Command().delay()
    """
    reset = _requester.set(name[:MAX_LENGTH])
    try:
        yield
    finally:
        _requester.reset(reset)


def current_requester() -> str:
    """Return the name given to `requested_by()`, or the execution, revision or user that this process runs as."""
    if name := _requester.get():
        return name
    if user := os.environ.get(environ.LOCAL_VARIABLE):
        return user
    if task := environ.current_task():
        return task.execution
    try:
        return (os.environ.get("K_REVISION") or getpass.getuser())[:MAX_LENGTH]
    except (KeyError, OSError):  # The user id has no name, as in many containers.
        return ""
