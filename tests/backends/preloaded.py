"""A WSGI application with a call to Cloud Run in flight in a thread while gunicorn forks its workers."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from threading import Thread
from typing import Any

import django

from tests.waiting import wait_for

django.setup()

from tests.jobs.management.commands.echo import Command  # noqa: E402

Thread(target=Command().delay, daemon=True).start()
wait_for(Path(os.environ["IN_FLIGHT"]).exists)


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Start a job and answer with the name of its execution."""
    name = Command().delay().execution_name
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [name.encode()]
