"""Who asks for a run."""

from __future__ import annotations

import getpass
import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from cloudrun_jobs import environ

MAX_LENGTH = 200

_asker: ContextVar[str] = ContextVar("cloudrun_jobs_asker", default="")


@contextmanager
def requested_by(name: str) -> Iterator[None]:
    """Record a person or a program as the one who asks for the runs of this block.

    with requested_by(request.user.get_username()):
        Command().delay()
    """
    reset = _asker.set(name[:MAX_LENGTH])
    try:
        yield
    finally:
        _asker.reset(reset)


def current_requester() -> str:
    """Return who was named, else the execution or the service this process is, else who is logged in."""
    if named := _asker.get():
        return named
    if task := environ.current_task():
        return task.execution
    return (os.environ.get("K_REVISION") or _user())[:MAX_LENGTH]


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # A number without a name, as in many containers.
        return ""
