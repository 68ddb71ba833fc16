"""Read the output of a process whose lines are entries of Cloud Logging."""

from __future__ import annotations

import json
from typing import IO, Any


def entries(output: str) -> list[dict[str, Any]]:
    """Return the entries, without the lines of text."""
    return [json.loads(line) for line in output.split("\n") if line.startswith("{")]


def shown(output: str) -> str:
    """Return the output as a person wrote it: entries by their messages, without the package's own records."""
    return "".join(map(_shown, output.splitlines(keepends=True)))


def _shown(line: str) -> str:
    if not line.startswith('{"severity"'):
        return line
    entry = json.loads(line)
    if "action" in entry:
        return ""
    return str(entry.get("stack_trace") or f"{entry['message']}\n")


def next_line(file: IO[str]) -> str:
    """Return the next line that the job has written, as text."""
    return next(filter(None, map(_shown, iter(file.readline, ""))), "")
