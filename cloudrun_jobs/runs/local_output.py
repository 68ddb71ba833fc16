"""Keep the output of `run --local`: a file per execution, readable only by this user.

The files are below `$XDG_STATE_HOME/cloudrun_jobs`, by default in `~/.local/state`, in a directory for each
database of run records. The newest are kept.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from threading import Lock
from typing import IO

from django.db import connections

from cloudrun_jobs.backends.log_entries import SEVERITIES, LogEntry
from cloudrun_jobs.runs.database import database_alias

MAX_FILE_BYTES = 16 * 1024 * 1024
MAX_FILES = 200
MAX_AGE_SECONDS = 30 * 24 * 3600
UNRECORDED_SECONDS = 24 * 3600
NAME = r"[a-z0-9][a-z0-9-]{0,99}"


def directory() -> Path:
    """Return the directory for the runs in this project's database."""
    state = Path(os.environ.get("XDG_STATE_HOME", ""))
    parent = state if state.is_absolute() else Path.home() / ".local" / "state"
    return parent / "cloudrun_jobs" / _database_digest()


def _database_digest() -> str:
    database = connections[database_alias()].settings_dict
    identity = [str(database.get(key, "")) for key in ("ENGINE", "HOST", "PORT", "NAME")]
    if "sqlite" in identity[0]:
        identity[-1] = str(Path(identity[-1]).absolute())
    return sha256(json.dumps(identity).encode()).hexdigest()[:16]


def path_of(execution: str | None) -> Path | None:
    """Return the file of an execution, if its output was kept."""
    if execution is None or not re.fullmatch(NAME, execution):
        return None
    with suppress(OSError, RuntimeError):  # There may be no home directory.
        path = directory() / f"{execution}.jsonl"
        return path if path.is_file() else None
    return None


class Recorder:
    """Writes the entries of one execution, or nothing if there is no writable directory."""

    def __init__(self, execution: str) -> None:
        self._lock, self._left = Lock(), MAX_FILE_BYTES
        self._file: IO[str] | None = None
        with suppress(OSError, RuntimeError):
            directory().parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            directory().mkdir(mode=0o700, exist_ok=True)
            remove_old()
            path = directory() / f"{execution}.jsonl"
            number = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            self._file = os.fdopen(number, "w", encoding="utf-8")

    def write(self, text: str, *, severity: str, task: int | None = None, attempt: int | None = None) -> None:
        """Append an entry, unless the file has its maximum size."""
        entry = {"time": time.time(), "severity": severity, "task": task, "attempt": attempt, "text": text}
        with self._lock:
            if self._file is None:
                return
            line = json.dumps(entry) + "\n"
            self._left -= len(line)
            if self._left < 0:
                entry |= {"severity": "WARNING", "text": "The rest of the output was not kept: it is too long."}
                line = json.dumps(entry) + "\n"
            try:
                self._file.write(line)
                self._file.flush()
            except OSError:  # The disk is full: the run continues.
                self._left = -1
            if self._left < 0:
                self._close()

    def close(self) -> None:
        with self._lock:
            self._close()

    def _close(self) -> None:
        if self._file is not None:
            with suppress(OSError):
                self._file.close()
            self._file = None


def entry_of(line: str) -> tuple[str, str | None]:
    """Return the text of a line of output, and its severity if the line is an entry of Cloud Logging."""
    if not line.startswith("{"):
        return line, None
    with suppress(ValueError, RecursionError):
        entry = json.loads(line)
        if isinstance(entry.get("severity"), str) and isinstance(entry.get("message"), str):
            texts = (entry["message"], entry.get("stack_trace"))
            text = "\n".join(text.rstrip("\n") for text in texts if isinstance(text, str))
            return text, entry["severity"] if entry["severity"] in SEVERITIES else "DEFAULT"
    return line, None


class LocalLog:
    """Reads a file, each call from the end of the previous one."""

    def __init__(self, path: Path) -> None:
        self._path, self._offset, self._number = path, 0, 0

    def read(self) -> Iterator[LogEntry]:
        """Yield the entries that were written since the last call."""
        with suppress(FileNotFoundError), self._path.open("rb") as file:
            file.seek(self._offset)
            for line in file:
                if not line.endswith(b"\n"):
                    return  # It is being written.
                self._offset += len(line)
                self._number += 1
                with suppress(ValueError, KeyError, TypeError):
                    yield self._entry(json.loads(line))

    def _entry(self, entry: dict[str, object]) -> LogEntry:
        return LogEntry(
            id=str(self._number),
            time=datetime.fromtimestamp(float(str(entry["time"])), UTC),
            severity=str(entry["severity"]),
            text=str(entry["text"]),
            task=entry["task"],  # type: ignore[arg-type]
            attempt=entry["attempt"],  # type: ignore[arg-type]
        )


def names() -> set[str]:
    """Return the executions whose output is kept, except those of the last day: a run may not be recorded yet."""
    try:
        files = [*directory().glob("*.jsonl")]
    except (OSError, RuntimeError):
        return set()
    return {path.stem for path in files if _modified(path) < time.time() - UNRECORDED_SECONDS}


def remove(executions: set[str]) -> None:
    """Delete the files of these executions."""
    for execution in executions:
        if (path := path_of(execution)) is not None:
            with suppress(OSError):
                path.unlink()


def remove_old() -> None:
    """Delete the files that are older than 30 days, and all but the newest."""
    files = sorted(directory().glob("*.jsonl"), key=_modified, reverse=True)
    for number, path in enumerate(files):
        if number >= MAX_FILES - 1 or _modified(path) < time.time() - MAX_AGE_SECONDS:
            with suppress(OSError):
                path.unlink()


def _modified(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:  # Another process has deleted it.
        return 0.0
