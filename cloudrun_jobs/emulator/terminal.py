"""Print what happens in the emulator: lines about executions, tasks, deliveries and calls that fail."""

from __future__ import annotations

import contextlib
import os
import queue
import threading
import time
import unicodedata
from dataclasses import dataclass, field
from functools import singledispatchmethod
from typing import TYPE_CHECKING, Any, Self, TextIO

from google.logging.type import log_severity_pb2
from google.protobuf import json_format

from cloudrun_jobs.emulator import names
from cloudrun_jobs.emulator.engine.outcomes import Kind, Outcome
from cloudrun_jobs.emulator.events import AttemptEnded, CallFailed, Delivered, ExecutionEnded, ExecutionStarted
from cloudrun_jobs.emulator.logs.store import Entry
from cloudrun_jobs.emulator.logs.tasks import LABEL_PREFIX

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from cloudrun_jobs.emulator.server import Emulator

SMALL_EXECUTION = 10  # Tasks. The tasks of a larger execution that succeed have no lines.
MAX_TASK_LINES = 10  # Of a larger execution.
# Of one kind of delivery or error.
MAX_LINES, WINDOW_SECONDS = 10, 10.0
MAX_WAITING = 100_000  # Events that a slow terminal has not shown.
CLOSE_SECONDS = 1.0

RED, GREEN, YELLOW, DIM = "31", "32", "33", "2"
COLOURS = {"succeeded": GREEN, "failed": RED, "cancelled": YELLOW}
ERROR = log_severity_pb2.LogSeverity.Value("ERROR")
ESCAPED_CATEGORIES = {"Cc", "Cf", "Cs", "Zl", "Zp"}
HARMLESS = "\t\N{ZERO WIDTH JOINER}\N{ZERO WIDTH NON-JOINER}"  # The joiner is part of emoji.


@dataclass(frozen=True, slots=True)
class Line:
    subject: str
    text: str
    colour: str = ""

    def render(self, clock: str, *, colours: bool) -> str:
        subject, text = escape(self.subject), escape(self.text)
        if not colours:
            return f"{clock}  {subject}  {text}\n"
        return f"{_coloured(clock, DIM)}  {subject}  {_coloured(text, self.colour)}\n"


@dataclass(slots=True)
class _Execution:
    """An execution that runs."""

    task_count: int
    finished: int = 0
    failed: int = 0
    lines: int = 0

    @property
    def is_small(self) -> bool:
        return self.task_count <= SMALL_EXECUTION


@dataclass(slots=True)
class _Window:
    start: float
    lines: int = 0


@dataclass(slots=True)
class Formatter:
    """Turns events and log entries into lines, few for large executions and for repeated errors."""

    executions: dict[str, _Execution] = field(default_factory=dict)  # Those that run, by short id.
    _windows: dict[str, _Window] = field(default_factory=dict)

    @singledispatchmethod
    def lines(self, event: Any, now: float) -> Iterator[Line]:
        """Yield the lines for an event at a time in seconds."""
        raise NotImplementedError(f"expected an event or a log entry, got {type(event).__name__}")

    @lines.register(ExecutionStarted)
    def _(self, event: ExecutionStarted, _now: float) -> Iterator[Line]:
        self.executions[names.short(event.name)] = _Execution(event.task_count)
        yield Line(names.short(event.name), f"started: {_tasks(event.task_count)}")

    @lines.register(ExecutionEnded)
    def _(self, event: ExecutionEnded, _now: float) -> Iterator[Line]:
        name = names.short(event.name)
        self.executions.pop(name, None)
        # If no task failed, the reason is the execution's.
        is_own = event.outcome == "failed" and not event.tasks["failed"]
        reason = event.message if is_own else _counts(event.tasks)
        yield Line(name, f"{event.outcome} in {event.seconds:.1f} s: {reason}", COLOURS[event.outcome])

    @lines.register(AttemptEnded)
    def _(self, event: AttemptEnded, _now: float) -> Iterator[Line]:
        name = names.short(event.execution)
        execution = self.executions.setdefault(name, _Execution(1))
        succeeded = event.outcome.kind is Kind.SUCCEEDED
        if execution.is_small or not succeeded:
            yield from self._limited(name, _attempt_line(name, event))
        if not event.restarts:
            execution.finished += 1
            execution.failed += not succeeded and event.outcome.kind is not Kind.CANCELLED
            yield from _progress(name, execution)

    @lines.register(Delivered)
    def _(self, event: Delivered, now: float) -> Iterator[Line]:
        result = event.result
        queue_name, separator, task = event.name.partition("/tasks/")
        subject = names.short(queue_name) + separator.replace("/tasks", "") + task
        outcome, colour = ("delivered", GREEN) if result.acknowledged else ("delivery failed", RED)
        answer = str(result.status or f"{result.code} {result.debug}")
        yield from self._rare(
            queue_name, Line(subject, f"{outcome}: {event.verb} {event.url} {answer}", colour), now
        )

    @lines.register(CallFailed)
    def _(self, event: CallFailed, now: float) -> Iterator[Line]:
        yield from self._rare(event.code, Line(event.call, f"{event.code}: {event.message}", YELLOW), now)

    @lines.register(Entry)
    def _(self, entry: Any, _now: float) -> Iterator[Line]:
        name = entry.labels.get(f"{LABEL_PREFIX}execution_name", "")
        index = entry.labels.get(f"{LABEL_PREFIX}task_index", "")
        if not is_system(entry):
            yield Line(name, f"task {index} | {_text(entry)}")
        elif name in self.executions:
            yield from self._limited(name, Line(name, f"task {index}: {entry.text_payload}", RED))

    def _limited(self, name: str, line: Line) -> Iterator[Line]:
        """Yield the line of a task, unless the execution has had enough of them."""
        execution = self.executions[name]
        execution.lines += 1
        if execution.is_small or execution.lines <= MAX_TASK_LINES:
            yield line
        elif execution.lines == MAX_TASK_LINES + 1:
            yield Line(name, "further lines about its tasks are left out")

    def _rare(self, kind: str, line: Line, now: float) -> Iterator[Line]:
        """Yield the line, unless there were many of its kind in the last seconds."""
        window = self._windows.get(kind)
        if window is None or now - window.start >= WINDOW_SECONDS:
            window = self._windows[kind] = _Window(now)
        window.lines += 1
        if window.lines < MAX_LINES:
            yield line
        elif window.lines == MAX_LINES:
            yield Line(line.subject, f"{line.text} (more of the kind are left out for some seconds)", line.colour)


class Terminal:
    """Prints what happens in an emulator to a stream. Use `with`.

    A thread writes, so that a slow or stopped terminal does not stop the emulator.
    """

    def __init__(self, emulator: Emulator, stream: TextIO, *, verbose: bool, colours: bool) -> None:
        self._emulator = emulator
        self._stream = stream
        self._verbose = verbose
        self._colours = colours
        self._formatter = Formatter()
        self._waiting: queue.Queue[tuple[float, Any]] = queue.Queue(MAX_WAITING)
        self._thread = threading.Thread(target=self._run, name="emulator-terminal", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self._emulator.events.listen(self._receive)
        self._emulator.logs.listen(self._receive_entry)
        return self

    def __exit__(self, *_: object) -> None:
        """Print what waits, and a last line."""
        self._unlisten()
        self._receive(None)
        self._thread.join(CLOSE_SECONDS)

    def _unlisten(self) -> None:
        self._emulator.events.unlisten(self._receive)
        self._emulator.logs.unlisten(self._receive_entry)

    def _receive(self, event: Any) -> None:
        with contextlib.suppress(queue.Full):
            self._waiting.put_nowait((time.time(), event))

    def _receive_entry(self, entry: Any) -> None:
        if is_shown(entry, verbose=self._verbose):
            self._receive(entry)

    def _run(self) -> None:
        try:
            self._print()
        except OSError:  # The pipe or the terminal is closed. The emulator goes on.
            self._unlisten()

    def _print(self) -> None:
        while (item := self._waiting.get())[1] is not None:
            at, event = item
            for line in self._formatter.lines(event, at):
                self._write(line.render(_clock(at), colours=self._colours))
        self._write(_stopping(len(self._formatter.executions), on_tty=self._stream.isatty()))

    def _write(self, text: str) -> None:
        """Write a line at once, past the stream's buffer: what it cannot write would fail again at exit."""
        data = text.encode(self._stream.encoding, "backslashreplace")
        while data:
            data = data[os.write(self._stream.fileno(), data) :]


def has_colours(stream: TextIO, environ: Mapping[str, str]) -> bool:
    """Return True if the stream is a terminal with colours. https://no-color.org"""
    return stream.isatty() and not environ.get("NO_COLOR") and environ.get("TERM") != "dumb"


def is_shown(entry: Any, *, verbose: bool) -> bool:
    """Return True for the platform's errors about a task, and if verbose also for its output."""
    is_output = f"{LABEL_PREFIX}task_index" in entry.labels and not is_system(entry)
    return (verbose and is_output) or is_system_error(entry)


def is_system(entry: Any) -> bool:
    return bool(entry.resource.type == "cloud_run_job" and entry.log_name.endswith("varlog%2Fsystem"))


def is_system_error(entry: Any) -> bool:
    return is_system(entry) and entry.severity >= ERROR


def escape(text: str) -> str:
    """Replace the characters that control a terminal or the direction of text."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(map(_escaped, text))


def _escaped(character: str) -> str:
    if character in HARMLESS or unicodedata.category(character) not in ESCAPED_CATEGORIES:
        return character
    return character.encode("unicode_escape").decode()


def _coloured(text: str, colour: str) -> str:
    return f"\x1b[{colour}m{text}\x1b[0m" if colour else text


def _clock(at: float) -> str:
    return time.strftime("%H:%M:%S", time.localtime(at))


def _tasks(number: int) -> str:
    return "1 task" if number == 1 else f"{number} tasks"


def _counts(tasks: Mapping[str, int]) -> str:
    """Return ``3 tasks succeeded, 1 failed``."""
    first, *others = [(number, outcome) for outcome, number in tasks.items() if number] or [(0, "started")]
    return ", ".join([f"{_tasks(first[0])} {first[1]}", *(f"{number} {outcome}" for number, outcome in others)])


def _attempt_line(name: str, event: AttemptEnded) -> Line:
    attempt = f" (attempt {event.number + 1})" if event.restarts or event.number else ""
    following = "; retrying" if event.restarts else ""
    colour = YELLOW if event.restarts else COLOURS.get(event.outcome.kind.value, RED)
    return Line(name, f"task {event.index}{attempt} {_outcome(event.outcome)}{following}", colour)


def _outcome(outcome: Outcome) -> str:
    if outcome.kind is Kind.EXITED and outcome.code < 0:
        return f"failed: signal {-outcome.code}"
    if outcome.kind is Kind.EXITED:
        return f"failed: exit code {outcome.code}"
    if outcome.kind is Kind.SUCCEEDED:
        return "succeeded: exit code 0"
    return "cancelled" if outcome.kind is Kind.CANCELLED else f"failed: {outcome.kind.value}"


def _progress(name: str, execution: _Execution) -> Iterator[Line]:
    """Yield a line for each tenth of a large execution, but for no fewer than ten tasks."""
    finished, count = execution.finished, execution.task_count
    if not execution.is_small and finished < count and finished % max(count // 10, 10) == 0:
        failed = f", {execution.failed} failed" if execution.failed else ""
        yield Line(name, f"{finished} of {count} tasks finished{failed}")


def _stopping(executions: int, *, on_tty: bool) -> str:
    killed = f", and killing {executions} unfinished execution{'s' * (executions > 1)}" if executions else ""
    start = "\r" if on_tty else ""  # Over the ^C of the terminal.
    return f"{start}{_clock(time.time())}  Stopping{killed}\n"


def _text(entry: Any) -> str:
    if entry.HasField("json_payload"):
        payload = json_format.MessageToDict(entry.json_payload)
        text = str(payload.get("message") or json_format.MessageToJson(entry.json_payload, indent=None))
    else:
        text = entry.text_payload
    severity = log_severity_pb2.LogSeverity.Name(entry.severity)
    return text if severity == "DEFAULT" else f"{severity} {text}"
