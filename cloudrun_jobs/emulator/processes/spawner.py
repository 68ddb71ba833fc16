"""Start and stop processes through the supervisor, and report their events to listeners."""

from __future__ import annotations

import itertools
import json
import os
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
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
DRAIN_TIMEOUT = 1.0  # seconds that output may still arrive after its process has exited


class ProcessListener(Protocol):
    """Receives the events of a process, in order, on the spawner's thread."""

    def started(self) -> None: ...
    def wrote(self, stream: str, line: str) -> None: ...
    def dropped(self, lines: int) -> None: ...
    def start_failed(self, reason: str) -> None: ...
    def exited(self, code: int, memory: int) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """A program to run. `identity` names the variables of `env` that identify the attempt.

    The `directory` contains all `files`. What the program changed there is removed when it ends.
    """

    argv: Sequence[str]
    cwd: str
    env: Mapping[str, str]
    identity: Sequence[str]
    directory: str
    files: Mapping[str, str | None]  # Text by path; None for a directory.
    memory: int = 0


@dataclass(slots=True)
class Process:
    """A process and its open output streams."""

    key: int
    listener: ProcessListener
    directory: str
    pid: int = 0
    streams: list[Stream] = field(default_factory=list)
    on_end: Callable[[], None] | None = None
    drain_deadline: float = float("inf")


class Spawner:
    """Owns the connection to the supervisor and all pipes. Only its thread uses them, so they need no lock."""

    def __init__(self) -> None:
        self._keys = itertools.count(1)
        self._processes: dict[int, Process] = {}
        self._calls: deque[Callable[[], None]] = deque()
        self._directories: list[str] = []  # Those of finished processes.
        self._receive_buffer = b""
        self._stopping = False
        self._supervised = True

    def open(self) -> None:
        """Start the supervisor and the spawner's thread."""
        self._root = Path(tempfile.mkdtemp(prefix="cloudrun-emulator-"))
        self._connection, supervisor_end = socket.socketpair()
        # In its own session, so that Ctrl-C in the terminal reaches only the emulator.
        self._supervisor = subprocess.Popen(  # noqa: S603
            [sys.executable, "-I", "-S", str(SUPERVISOR_SCRIPT), str(supervisor_end.fileno()), str(self._root)],
            pass_fds=[supervisor_end.fileno()],
            start_new_session=True,
            stdin=subprocess.DEVNULL,
        )
        supervisor_end.close()
        self._selector = selectors.DefaultSelector()
        self._wakeup_read, self._wakeup_write = os.pipe()
        os.set_blocking(self._wakeup_read, False)
        os.set_blocking(self._wakeup_write, False)
        self._selector.register(self._connection, selectors.EVENT_READ, self._receive)
        self._selector.register(self._wakeup_read, selectors.EVENT_READ, self._run_submitted)
        self._thread = threading.Thread(target=self._run, name="emulator-spawner", daemon=True)
        self._thread.start()

    @property
    def supervisor_pid(self) -> int:
        return self._supervisor.pid

    def directory(self) -> str:
        """Return the path of a directory that no process uses, and that is removed when the supervisor ends."""
        try:
            return self._directories.pop()
        except IndexError:
            return f"{self._root}/task-{next(self._keys)}"

    def call_soon(self, call: Callable[[], None]) -> None:
        """Call a function on the spawner's thread."""
        self._calls.append(call)
        try:
            os.write(self._wakeup_write, b"!")
        except BlockingIOError:
            return  # The pipe is full, so the thread wakes up anyway.

    def start(self, program: Program, listener: ProcessListener) -> int:
        key = next(self._keys)
        self.call_soon(lambda: self._start(key, program, listener))
        return key

    def stop(self, key: int, *, grace: float) -> None:
        """Send SIGTERM, and SIGKILL after the grace period (seconds); with a grace of 0, send SIGKILL at once."""
        self.call_soon(partial(self._send, {"command": "stop", "key": key, "grace": grace}))

    def signal(self, key: int, number: int) -> None:
        self.call_soon(partial(self._send, {"command": "signal", "key": key, "number": int(number)}))

    def close(self) -> None:
        """Kill every process and wait for the supervisor to exit."""
        if not self._stopping:
            self.call_soon(self._request_stop)
            self._thread.join()
            self._supervisor.wait()
            shutil.rmtree(self._root, ignore_errors=True)  # If the supervisor was killed.
            os.close(self._wakeup_write)

    def _request_stop(self) -> None:
        self._stopping = True

    def _run(self) -> None:
        try:
            while not self._stopping:
                self._run_once()
        finally:
            # Also after an exception in a listener: closing the connection ends the supervisor and its processes.
            self._close_all()

    def _run_once(self) -> None:
        waiting = [p.drain_deadline for p in self._processes.values() if p.on_end is not None]
        timeout = max(min(waiting) - time.monotonic(), 0.0) if waiting else None
        for key, _ in self._selector.select(timeout):
            key.data()
        self._finish_drained()

    def _close_all(self) -> None:
        for process in self._processes.values():
            self._close_streams(process)
        for key in list(self._selector.get_map().values()):
            self._selector.unregister(key.fileobj)
        self._selector.close()
        self._connection.close()
        os.close(self._wakeup_read)

    def _run_submitted(self) -> None:
        os.read(self._wakeup_read, 1 << 16)
        while self._calls and not self._stopping:
            self._calls.popleft()()

    def _start(self, key: int, program: Program, listener: ProcessListener) -> None:
        process = self._processes[key] = Process(key, listener, program.directory)
        if not self._supervised:
            self._end(
                process, lambda: listener.start_failed("the supervisor process was killed; restart the emulator")
            )
            return
        write_fds = [self._pipe(process, name) for name in ("stdout", "stderr")]
        command = {
            "command": "start",
            "key": key,
            "argv": list(program.argv),
            "cwd": program.cwd,
            "env": dict(program.env),
            "memory": program.memory,
            "identity": list(program.identity),
            "directory": program.directory,
            "files": dict(program.files),
        }
        self._send(command, write_fds)
        for fd in write_fds:
            os.close(fd)

    def _pipe(self, process: Process, name: str) -> int:
        read_fd, write_fd = os.pipe()
        stream = Stream(read_fd, lambda line: process.listener.wrote(name, line))
        process.streams.append(stream)
        self._selector.register(read_fd, selectors.EVENT_READ, lambda: self._read(process, stream))
        return write_fd

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

    def _send(self, command: Mapping[str, Any], fds: Sequence[int] = ()) -> None:
        if not self._supervised:
            return
        body = json.dumps(command).encode()
        try:
            socket.send_fds(self._connection, [len(body).to_bytes(4, "big")], fds)
            self._connection.sendall(body)
        except ConnectionError:
            self._on_supervisor_lost()

    def _receive(self) -> None:
        try:
            data = self._connection.recv(1 << 16)
        except ConnectionError:
            data = b""
        if not data:
            self._on_supervisor_lost()
            return
        *lines, self._receive_buffer = (self._receive_buffer + data).split(b"\n")
        for line in lines:
            self._handle_event(json.loads(line))

    def _handle_event(self, event: dict[str, Any]) -> None:
        process = self._processes[event["key"]]
        if event["event"] == "started":
            process.pid = event["pid"]
            process.listener.started()
        elif event["event"] == "start_failed":
            self._end(process, lambda: process.listener.start_failed(event["reason"]))
        else:
            self._end(process, lambda: process.listener.exited(event["code"], event["used"]))

    def _end(self, process: Process, on_end: Callable[[], None]) -> None:
        """Call `on_end` when all output of the process has been read, or after DRAIN_TIMEOUT."""
        process.on_end = on_end
        process.drain_deadline = time.monotonic() + DRAIN_TIMEOUT

    def _finish_drained(self) -> None:
        now = time.monotonic()
        for process in [p for p in self._processes.values() if p.on_end is not None]:
            if process.on_end is not None and (not process.streams or process.drain_deadline <= now):
                self._close_streams(process)
                del self._processes[process.key]
                self._directories.append(process.directory)
                process.on_end()

    def _on_supervisor_lost(self) -> None:
        """Kill every process after the supervisor died, which only a signal from outside can cause."""
        if not self._supervised:
            return
        self._supervised = False
        self._selector.unregister(self._connection)
        for process in self._processes.values():
            if process.pid:
                _kill_group(process.pid)
            self._end(process, partial(process.listener.exited, -signal.SIGKILL, 0))


def _kill_group(pid: int) -> None:
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:
        return
