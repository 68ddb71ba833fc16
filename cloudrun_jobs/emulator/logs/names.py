"""The names of logs, and of the resources that contain them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from urllib.parse import quote, unquote

from cloudrun_jobs.emulator.errors import invalid

MAX_RESOURCES = 100
CONTAINER = r"(?:projects|organizations|folders|billingAccounts)/[^/]+"
LOG_NAME = re.compile(rf"({CONTAINER})/logs/(.+)")
LOG_ID = re.compile(r"[A-Za-z0-9/_.-]{1,511}")
RESOURCE = re.compile(rf"({CONTAINER})(?:/locations/[^/]+/buckets/([^/]+)/views/[^/]+)?")
DEFAULT_BUCKET = "_Default"  # The emulator has no other bucket.


def canonical(log_name: str) -> str:
    """Return the name of a log, with its id encoded: ``projects/P/logs/run.googleapis.com%2Fstdout``."""
    parts = LOG_NAME.fullmatch(log_name)
    log_id = unquote(parts[2]) if parts else ""
    if parts is None or not LOG_ID.fullmatch(log_id):
        raise invalid(f"Invalid log name '{log_name}': expected projects/PROJECT/logs/LOG, with an encoded LOG.")
    return f"{parts[1]}/logs/{quote(log_id, safe='')}"


def prefixes(resources: Iterable[str]) -> tuple[str, ...]:
    """Return what the names of the logs in these resources begin with; a view has the logs of its project."""
    found = []
    resources = list(resources)
    if not 0 < len(resources) <= MAX_RESOURCES:
        raise invalid(f"resource_names must name at least one project, and at most {MAX_RESOURCES} resources.")
    for name in resources:
        parts = RESOURCE.fullmatch(name)
        if parts is None:
            raise invalid(f"Invalid resource name '{name}': expected projects/PROJECT, or a view of a bucket.")
        if parts[2] in (None, DEFAULT_BUCKET):
            found.append(f"{parts[1]}/logs/")
    return tuple(found)
