"""Who this process is to the locks."""

from __future__ import annotations

import os
import socket
from functools import cache
from uuid import uuid4

from .. import context
from .base import Owner


def new_owner() -> Owner:
    """Return this process as the owner of one new request."""
    task = context.current()
    if task is None:
        return Owner(holder=_process(os.getpid()), nonce=uuid4().hex)
    return Owner(holder=task.execution, index=task.index, attempt=task.attempt, nonce=uuid4().hex)


@cache
def _process(pid: int) -> str:
    # The UUID: process numbers come again, and all containers' are alike.
    return f"local:{socket.gethostname()[:100]}:{pid}:{uuid4().hex[:12]}"
