"""The lock owner that stands for this process."""

from __future__ import annotations

import os
import secrets
import socket
from functools import cache

from cloudrun_jobs import environ
from cloudrun_jobs.locks.base import Owner


def new_owner() -> Owner:
    """Return this process as the owner of one new request."""
    task = environ.current_task()
    if task is None:
        return Owner(holder=_process(os.getpid()), nonce=secrets.token_hex(16))
    return Owner(holder=task.execution, index=task.index, attempt=task.attempt, nonce=secrets.token_hex(16))


@cache
def _process(pid: int) -> str:
    # The random part: process ids are reused, and those of containers are all alike.
    return f"local:{socket.gethostname()[:100]}:{pid}:{secrets.token_hex(6)}"
