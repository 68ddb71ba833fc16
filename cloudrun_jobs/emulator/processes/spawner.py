"""The emulator's end of the line to the supervisor: it starts processes, and hears how they fare."""

from __future__ import annotations

import itertools
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from cloudrun_jobs.emulator.processes.output import Stream

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

SUPERVISOR_SCRIPT = Path(__file__).with_name("supervisor.py")
DRAIN = 1.0  # Seconds that output may take to end after its process did.


class Listener(Protocol):
    """Whoever started a process; called on the spawner's one thread, in the order things happened."""

    def started(self) -> None: ...
    def wrote(self, stream: str, line: str) -> None: ...
    def dropped(self, lines: int) -> None: ...
    def refused(self, reason: str) -> None: ...
    def exited(self, code: int, memory: int) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """What to run, where, with which environment, and what names in it tell this attempt from others."""

    argv: Sequence[str]
    cwd: str
    env: Mapping[str, str]
    marks: Sequence[str]
    memory: int = 0


@dataclass(slots=True)
class Process:
    """A process started by the spawner; the streams are open until it is done."""

    key: int
    listener: Listener
    pid: int = 0
    streams: list[Stream] = field(default_factory=list)
    ending: Callable[[], None] | None = None
    drain_until: float = float("inf")


class Spawner:
    """One thread that owns the line to the supervisor and all pipes, so that nothing of it needs a lock."""

    def __init__(self) -> None:
        self._keys = itertools.count(1)
        self._processes: dict[int, Process] = {}
        self._orders: deque[Callable[[], None]] = deque()
        self._inbox = b""
        self._stopping = False
        self._guarded = True

    def open(self) -> None:
        """Start the supervisor and the thread that talks to it."""
        self._line, theirs = socket.socketpair()
        # In a session of its own: Ctrl-C in the terminal must reach the emulator alone.
        self._supervisor = subprocess.Popen(  # noqa: S603
            [sys.executable, "-I", "-S", str(SUPERVISOR_SCRIPT), str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            start_new_session=True,
            stdin=subprocess.DEVNULL,
        )
        theirs.close()
        self._selector = selectors.DefaultSelector()
        self._wakeup, self._wake = os.pipe()
        os.set_blocking(self._wakeup, False)
        os.set_blocking(self._wake, False)
        self._selector.register(self._line, selectors.EVENT_READ, self._hear)
        self._selector.register(self._wakeup, selectors.EVENT_READ, self._awake)
        self._thread = threading.Thread(target=self._run, name="emulator-spawner", daemon=True)
        self._thread.start()

    @property
    def supervisor_pid(self) -> int:
        return self._supervisor.pid

    def start(self, program: Program, listener: Listener) -> int:
        key = next(self._keys)
        self._order(lambda: self._start(key, program, listener))
        return key

    def stop(self, key: int, *, grace: float) -> None:
        """SIGTERM now, SIGKILL after the grace; without grace, SIGKILL at once."""
        self._order(partial(self._send, {"do": "stop", "key": key, "grace": grace}))

    def signal(self, key: int, number: int) -> None:
        self._order(partial(self._send, {"do": "signal", "key": key, "number": int(number)}))

    def close(self) -> None:
        """End every process and wait until none is left."""
        if not self._stopping:
            self._order(self._quit)
            self._thread.join()
            self._supervisor.wait()
            os.close(self._wake)

    def _order(self, order: Callable[[], None]) -> None:
        self._orders.append(order)
        try:
            os.write(self._wake, b"!")
        except BlockingIOError:
            return  # The pipe is full of wake-ups already.

    def _quit(self) -> None:
        self._stopping = True

    def _run(self) -> None:
        try:
            while not self._stopping:
                self._turn()
        finally:
            # Also when a listener failed: closing the line is what ends the supervisor and its processes.
            self._shut()

    def _turn(self) -> None:
        waiting = [p.drain_until for p in self._processes.values() if p.ending is not None]
        patience = max(min(waiting) - time.monotonic(), 0.0) if waiting else None
        for key, _ in self._selector.select(patience):
            key.data()
        self._finish_drained()

    def _shut(self) -> None:
        for process in self._processes.values():
            self._close_streams(process)
        for key in list(self._selector.get_map().values()):
            self._selector.unregister(key.fileobj)
        self._selector.close()
        self._line.close()
        os.close(self._wakeup)

    def _awake(self) -> None:
        os.read(self._wakeup, 1 << 16)
        while self._orders and not self._stopping:
            self._orders.popleft()()

    def _start(self, key: int, program: Program, listener: Listener) -> None:
        process = self._processes[key] = Process(key, listener)
        if not self._guarded:
            self._end(process, lambda: listener.refused("the supervisor process was killed; restart the emulator"))
            return
        ends = [self._pipe(process, name) for name in ("stdout", "stderr")]
        order = {
            "do": "start",
            "key": key,
            "argv": list(program.argv),
            "cwd": program.cwd,
            "env": dict(program.env),
            "memory": program.memory,
            "marks": list(program.marks),
        }
        self._send(order, ends)
        for end in ends:
            os.close(end)

    def _pipe(self, process: Process, name: str) -> int:
        ours, theirs = os.pipe()
        stream = Stream(ours, lambda line: process.listener.wrote(name, line))
        process.streams.append(stream)
        self._selector.register(ours, selectors.EVENT_READ, lambda: self._read(process, stream))
        return theirs

    def _read(self, process: Process, stream: Stream) -> None:
        if stream in process.streams and not stream.read():
            self._close_stream(process, stream)

    def _close_stream(self, process: Process, stream: Stream) -> None:
        self._selector.unregister(stream.fd)
        process.streams.remove(stream)
        stream.close()
        if stream.dropped:
            process.listener.dropped(stream.dropped)

    def _close_streams(self, process: Process) -> None:
        for stream in list(process.streams):
            self._close_stream(process, stream)

    def _send(self, order: Mapping[str, Any], fds: Sequence[int] = ()) -> None:
        if not self._guarded:
            return
        body = json.dumps(order).encode()
        try:
            socket.send_fds(self._line, [len(body).to_bytes(4, "big")], fds)
            self._line.sendall(body)
        except ConnectionError:
            self._lose_supervisor()

    def _hear(self) -> None:
        try:
            data = self._line.recv(1 << 16)
        except ConnectionError:
            data = b""
        if not data:
            self._lose_supervisor()
            return
        *lines, self._inbox = (self._inbox + data).split(b"\n")
        for line in lines:
            self._obey(json.loads(line))

    def _obey(self, news: dict[str, Any]) -> None:
        process = self._processes[news["key"]]
        if news["event"] == "started":
            process.pid = news["pid"]
            process.listener.started()
        elif news["event"] == "refused":
            self._end(process, lambda: process.listener.refused(news["reason"]))
        else:
            self._end(process, lambda: process.listener.exited(news["code"], news["used"]))

    def _end(self, process: Process, ending: Callable[[], None]) -> None:
        """Tell how a process ended, but only after all that it wrote."""
        process.ending = ending
        process.drain_until = time.monotonic() + DRAIN

    def _finish_drained(self) -> None:
        now = time.monotonic()
        for process in [p for p in self._processes.values() if p.ending is not None]:
            if process.ending is not None and (not process.streams or process.drain_until <= now):
                self._close_streams(process)
                del self._processes[process.key]
                process.ending()

    def _lose_supervisor(self) -> None:
        """The supervisor died, which only a stranger's signal can do: end what it can no longer watch."""
        if not self._guarded:
            return
        self._guarded = False
        self._selector.unregister(self._line)
        for process in self._processes.values():
            if process.pid:
                _kill_group(process.pid)
            self._end(process, partial(process.listener.exited, -signal.SIGKILL, 0))


def _kill_group(pid: int) -> None:
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:
        return
