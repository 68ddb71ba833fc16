"""Write a command's `stdout` and `stderr` as Cloud Logging entries, with the severities of its `style`.

Each entry is written to the file descriptor at once. Threads, signal handlers and child processes may write. If
the output is closed or broken, nothing is written and nothing is raised.
"""

from __future__ import annotations

import atexit
import fcntl
import logging
import os
import select
import sys
import threading
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from io import TextIOWrapper
from types import CodeType
from typing import Any, TypeAlias

from django.core.management.base import BaseCommand, OutputWrapper

from cloudrun_jobs.logs import context, styles
from cloudrun_jobs.process.deferral import uninterruptible

INFO, ERROR = logging.INFO, logging.ERROR
MAX_UNFINISHED_LINE = 200_000  # characters
PIPE_BYTES = 1 << 20  # The largest size that Linux allows without privileges.
MAX_PLACES = 4096  # Source locations in the cache.
PIPE_FULL_TIMEOUT = 30.0  # seconds, for a pipe that does not block
STREAM_NAMES = ("stdout", "stderr")
Encoder: TypeAlias = Callable[[int, str, str], bytes]
DJANGO_WRITE, DJANGO_RUN = OutputWrapper.write.__code__, BaseCommand.run_from_argv.__code__


class EntryStream(OutputWrapper):
    """A command's `stdout` or `stderr` that writes an entry for each call of `write()`."""

    def __init__(self, name: str, out: Any, ending: str = "\n") -> None:
        super().__init__(out, ending)
        self._severity = INFO if name == "stdout" else ERROR
        self._lines = threading.local()
        self._unfinished: dict[int, _Line] = {}

    @property
    def style_func(self) -> Any:
        return self._style_func

    @style_func.setter
    def style_func(self, style_func: Any) -> None:
        self._style_func = style_func

    def isatty(self) -> bool:
        return False

    def write(  # type: ignore[override]  # as Django's
        self, msg: Any = "", style_func: Callable[[str], str] | None = None, ending: str | None = None
    ) -> None:
        text = msg if isinstance(msg, str) else _text(msg)
        if (style := style_func or self._style_func) is not None:
            text = style(text)
        severity = styles.severity_of(text)
        ending = self.ending if ending is None else ending
        line: _Line | None = getattr(self._lines, "line", None)
        if line is None or line.is_empty:
            if ending == "\n" or text.endswith("\n"):
                self._write_entry(text, severity, sys._getframe(1))
                return
            if line is None:
                line = self._lines.line = _Line()
        self._join(line, text if not ending or text.endswith(ending) else text + ending, severity)

    def _join(self, line: _Line, text: str, severity: int) -> None:
        """Add the text to the unfinished line of this thread, and write the finished lines."""
        frame = sys._getframe(2)
        before, newline, rest = text.rpartition("\n")
        if newline:
            self._unfinished.pop(id(line), None)
            self._write_entry(*line.end(before, severity), frame)
        if rest:
            line.add(rest, severity, frame)
            self._unfinished[id(line)] = line
            _flush_at_exit(self)
            if line.length > MAX_UNFINISHED_LINE:
                self._write_entry(*line.end(), frame)

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line, ending="")

    def flush(self) -> None:
        """Flush the buffer of `print()`. An unfinished line is kept until it ends."""
        with suppress(OSError, ValueError, RuntimeError, AttributeError):
            self._out.flush()  # type: ignore[attr-defined]

    def finish(self) -> None:
        """Write the unfinished lines of all threads."""
        _streams.pop(id(self), None)
        while self._unfinished:
            with suppress(KeyError):  # Another thread has taken it.
                _, line = self._unfinished.popitem()
                if not line.is_empty:
                    place = line.place
                    text, severity = line.end()
                    self._write(text, severity, place)

    def _write_entry(self, text: str, severity: int, frame: Any) -> None:
        while frame.f_code is DJANGO_WRITE:  # A command was called with this stream.
            frame = frame.f_back
        if frame.f_code is DJANGO_RUN and id(sys.exception()) == _reported_error:
            severity = logging.WARNING  # Of a CommandError, which `job_finished` has reported with its traceback.
        self._write(text, severity, (frame.f_code, frame.f_lineno))

    def _write(self, text: str, severity: int, place: tuple[CodeType, int]) -> None:
        text = text.strip("\r\n")
        if not text or text.isspace():
            return
        if (encode := _encoders.get("text")) is None and (encode := self._first_encoder()) is None:
            _interrupting.append((self, text, severity, place))
            return
        write_line(self._out, encode(severity or self._severity, text, _place(*place)))
        while _interrupting:
            stream, *line = _interrupting.pop(0)
            stream._write(*line)

    def _first_encoder(self) -> Encoder | None:
        """Import the encoder when it is first needed. Return None in a signal handler during the import."""
        if (thread := threading.get_ident()) in _importing:
            return None
        _importing.add(thread)
        try:
            from cloudrun_jobs.logs.entries import encode_text

            _enlarge_pipe(self._out)
            return _encoders.setdefault("text", encode_text)
        finally:
            _importing.discard(thread)


def _text(value: object) -> str:
    from cloudrun_jobs.logs import entries

    return entries.text_of(value)


def _place(code: CodeType, line: int) -> str:
    """Return the place of a call in JSON form."""
    if (place := _places.get(key := (id(code), line))) is None or place[0] is not code:
        from cloudrun_jobs.logs import entries

        if len(_places) >= MAX_PLACES:
            _places.clear()
        place = _places[key] = code, entries.encode_place(code.co_filename, line, code.co_name)
    return place[1]


_encoders: dict[str, Encoder] = {}
_importing: set[int] = set()  # Threads.
_interrupting: list[Any] = []  # The lines that signal handlers write during the import.
_reported_error = 0  # The id of the exception.
_places: dict[tuple[int, int], tuple[CodeType, str]] = {}  # By id: the hash of a code object takes microseconds.


class _Line:
    """The beginning of a thread's unfinished line."""

    def __init__(self) -> None:
        self._parts: list[str] = []
        self._severity = 0
        self.length = 0
        self.place: Any = None

    @property
    def is_empty(self) -> bool:
        return not self._parts

    def add(self, text: str, severity: int, frame: Any) -> None:
        self._parts.append(text)
        self._severity = max(self._severity, severity)
        self.length += len(text)
        self.place = frame.f_code, frame.f_lineno

    def end(self, rest: str = "", severity: int = 0) -> tuple[str, int]:
        """Return the whole line and its severity, and begin a new one."""
        text, severity = "".join([*self._parts, rest]), max(self._severity, severity)
        self._parts, self._severity, self.length = [], 0, 0
        return text, severity


_streams: dict[int, EntryStream] = {}  # Streams with an unfinished line.
_flushing_process: int | None = None


def _flush_at_exit(stream: EntryStream) -> None:
    global _flushing_process
    _streams[id(stream)] = stream
    if _flushing_process != os.getpid():
        _flushing_process = os.getpid()
        atexit.register(flush)
        if "multiprocessing.util" in sys.modules:  # Its children do not call the functions of `atexit`.
            from multiprocessing.util import Finalize

            Finalize(None, flush, exitpriority=0)


def flush() -> None:
    """Write the unfinished lines of all commands."""
    while _streams:
        _, stream = _streams.popitem()
        stream.finish()


def install(command: BaseCommand, given: Collection[str] = ()) -> None:
    """Turn the command's output into entries, except for the streams in `given`, which the caller has passed."""
    for name in STREAM_NAMES:
        wrapper = getattr(command, name)
        if name in given or type(wrapper) is not OutputWrapper:
            continue
        if (found := own_stream(name, wrapper._out)) is not None:
            _follow_prints(found[0])
            setattr(command, name, EntryStream(name, found[0], wrapper.ending))
    streams = (command.stdout, command.stderr)
    if any(isinstance(each, EntryStream) or isinstance(each._out, EntryStream) for each in streams):
        command.style = styles.entry_style(command.style)


def mark_reported(error: BaseException) -> None:
    """Note that an entry of severity ERROR has the error, so that Django's output does not report it again."""
    global _reported_error
    _reported_error = id(error)


def finish(command: BaseCommand) -> None:
    """Write the command's unfinished lines."""
    styles.forget()
    for stream in (command.stdout, command.stderr):
        if isinstance(stream, EntryStream):
            stream.finish()


def own_stream(name: str, out: Any) -> tuple[Any] | None:
    """Return the process's own stream in a tuple; None if `out` is a terminal, or another stream."""
    real = getattr(sys, f"__{name}__")
    if type(out).__module__ == "celery.utils.log":  # A Celery worker replaces stdout and stderr with a logger.
        return (real,)
    if out is None:  # The process was started without the stream.
        return (None,)
    if out not in {getattr(sys, name), real}:
        return None
    with suppress(OSError, ValueError, AttributeError):
        return None if os.isatty(out.fileno()) else (out,)
    return (out,) if getattr(out, "closed", False) is True else None


def _follow_prints(stream: Any) -> None:
    """Make the stream note if `print()` leaves a line unfinished, because an entry needs its own line."""
    if type(stream) is not TextIOWrapper or "write" in vars(stream):
        return
    write, key = stream.write, id(stream)

    def write_and_note(text: str) -> int:
        count = write(text)
        if text:
            _has_begun_line[key] = text[-1] != "\n"
        return count

    vars(stream)["write"] = write_and_note


_has_begun_line: dict[int, bool] = {}  # By the id of the stream.


def _enlarge_pipe(stream: Any) -> None:
    """Enlarge the pipe of the output, so that a slow reader does not block the job: entries are long."""
    with suppress(OSError, ValueError, AttributeError):
        fcntl.fcntl(stream.fileno(), fcntl.F_SETPIPE_SZ, PIPE_BYTES)


def _shares_output() -> bool:
    """Return True if other processes may be writing to the same pipe."""
    return _lock.has_forked or "multiprocessing.spawn" in sys.modules  # It starts processes without a fork.


class _Lock:
    """Serialise the writes of this process. It is reentrant: a signal handler may interrupt a write."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.is_busy = False
        self.has_forked = context.RUN_VARIABLE in os.environ  # A run started this process.
        self.deferred: list[tuple[int, bytes]] = []


_lock = _Lock()


def _reset_after_fork() -> None:
    global _lock
    _lock = _Lock()
    _lock.has_forked = True
    for stream in _streams.values():  # The parent writes its own unfinished lines.
        stream._unfinished.clear()
        stream._lines = threading.local()
    _streams.clear()


def _note_fork() -> None:
    _lock.has_forked = True


os.register_at_fork(after_in_child=_reset_after_fork, after_in_parent=_note_fork)


def write_line(stream: Any, line: bytes) -> None:
    """Write the line to the stream's file descriptor at once, after the buffer of `print()`. Raise nothing."""
    try:
        with suppress(RuntimeError):  # A signal handler has interrupted a write.
            stream.flush()
        fd = stream.fileno()
    except (OSError, ValueError, AttributeError):  # The stream is in memory, closed or None.
        with suppress(OSError, ValueError, AttributeError):
            stream.write(line.decode())
            stream.flush()
        return
    if _has_begun_line.pop(id(stream), False):
        line = b"\n" + line
    if len(line) <= select.PIPE_BUF and not _shares_output():
        line = _write_short(fd, line)
    if line:
        _write(fd, line)


def _write_short(fd: int, line: bytes) -> bytes:
    """Write a line that fits into one atomic write to a pipe; return what was not written."""
    try:
        with _lock.lock:
            return line if _lock.is_busy else line[os.write(fd, line) :]
    except OSError:
        return line


@uninterruptible
def _write(fd: int, line: bytes) -> None:
    with _lock.lock:
        if _lock.is_busy:  # This is a signal handler that interrupted a write.
            _lock.deferred.append((fd, line))
            return
        try:
            _lock.is_busy = True
            _write_locked(fd, line)
        finally:
            while _lock.deferred:
                _write_locked(*_lock.deferred.pop(0))
            _lock.is_busy = False


def _write_locked(fd: int, line: bytes) -> None:
    try:
        fcntl.lockf(
            fd, fcntl.LOCK_EX
        )  # Other processes may write to the same pipe, which takes long lines in parts.
    except OSError:  # The file is closed, or does not support locks.
        _write_all(fd, line)
        return
    try:
        _write_all(fd, line)
    finally:
        with suppress(OSError):
            fcntl.lockf(fd, fcntl.LOCK_UN)


def _write_all(fd: int, line: bytes) -> None:
    rest, deadline, raised = line, 0.0, None
    while rest:
        try:
            rest = rest[os.write(fd, rest) :]
        except BlockingIOError:
            deadline = deadline or time.monotonic() + PIPE_FULL_TIMEOUT
            if time.monotonic() > deadline:
                break
            poll = select.poll()
            poll.register(fd, select.POLLOUT)
            poll.poll(1000)
        except OSError:  # The file is closed, or the pipe has no reader.
            break
        except BaseException as error:  # noqa: BLE001  (raised by a signal handler: half an entry is invalid)
            raised = error
    if raised is not None:
        raise raised
