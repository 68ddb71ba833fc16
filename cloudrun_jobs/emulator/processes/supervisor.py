"""Own the processes of all tasks, so that none outlives the emulator.

The supervisor is a program that uses only the standard library, runs in its own process and session, and receives
commands over a socket. The socket closes however the emulator dies, even by SIGKILL; neither PR_SET_PDEATHSIG
(bound to the spawning thread, and not inherited by grandchildren) nor an exit handler guarantees that. Spawning
here also avoids forking a process that uses gRPC, whose children can hang or abort.
"""

from __future__ import annotations

import array
import ctypes
import json
import os
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

PR_SET_CHILD_SUBREAPER = 36
MEMORY_POLL_INTERVAL = 0.05  # seconds
HEADER_BYTES = 4
MODIFIED_BEFORE = 10**9  # nanoseconds
PAGE_BYTES = os.sysconf("SC_PAGESIZE")


Stats: TypeAlias = dict[str, tuple[int, ...]]


@dataclass(slots=True)
class Attempt:
    """A running main process, the leader of a process group with the same id."""

    key: int
    process: subprocess.Popen[bytes]
    directory: str  # Cleaned when the process ends.
    identity: frozenset[bytes]  # NAME=value pairs in the environment, also of children that left the group.
    memory: int = 0
    used: int = 0
    kill_at: float = field(default=float("inf"))

    @property
    def pid(self) -> int:
        return self.process.pid


class Supervisor:
    def __init__(self, connection: socket.socket, root: str) -> None:
        self.connection = connection
        self.root = root
        self.send_buffer = b""
        self.attempts: dict[int, Attempt] = {}
        self.by_key: dict[int, Attempt] = {}
        self.directories: dict[str, Stats] = {}  # With their files, as they were before any task ran.
        self.connected = True
        self.selector = selectors.DefaultSelector()
        self.wakeup_read, wakeup_write = os.pipe()
        for fd in (self.wakeup_read, wakeup_write):
            os.set_blocking(fd, False)
        signal.set_wakeup_fd(wakeup_write)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        # Tasks would inherit SIG_IGN, even if it was set by nohup or by a shell's &, but do not inherit a handler.
        for number in (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
            signal.signal(number, lambda *_: None)
        self.selector.register(connection, selectors.EVENT_READ)
        self.selector.register(self.wakeup_read, selectors.EVENT_READ)

    def run(self) -> None:
        while self.connected:
            self.run_once()
        for attempt in self.attempts.values():
            _kill_group(attempt.pid, signal.SIGKILL)
        while self.attempts:
            self.collect_exited(block=True)
        for orphan in _children():
            _kill(orphan)
        shutil.rmtree(self.root, ignore_errors=True)

    def run_once(self) -> None:
        for key, _ in self.selector.select(self.timeout()):
            if key.fileobj is self.connection:
                self.receive()
            else:
                os.read(self.wakeup_read, 4096)
        self.collect_exited()
        self.check_memory()
        self.kill_overdue()
        self.flush()

    def timeout(self) -> float | None:
        due = [attempt.kill_at - time.monotonic() for attempt in self.attempts.values()]
        polls = [MEMORY_POLL_INTERVAL for attempt in self.attempts.values() if attempt.memory]
        nearest = min([*due, *polls], default=float("inf"))
        return None if nearest == float("inf") else max(nearest, 0.0)

    def receive(self) -> None:
        """Execute one command: four bytes of length, with file descriptors attached, then JSON."""
        header, fds = _receive_with_fds(self.connection)
        body = _receive(self.connection, int.from_bytes(header, "big")) if len(header) == HEADER_BYTES else b""
        if not body:
            self.connected = False
            return
        message = json.loads(body)
        getattr(self, "do_" + message.pop("command"))(fds=fds, **message)

    def report(self, **message: Any) -> None:
        self.send_buffer += json.dumps(message).encode() + b"\n"

    def flush(self) -> None:
        """Send without blocking: the emulator may itself be blocked on a write to this process."""
        if self.send_buffer and self.connected:
            try:
                sent = self.connection.send(self.send_buffer, socket.MSG_DONTWAIT)
            except BlockingIOError:
                sent = 0
            except ConnectionError:
                self.connected = False
                return
            self.send_buffer = self.send_buffer[sent:]
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if self.send_buffer else 0)
        self.selector.modify(self.connection, events)

    def do_start(
        self,
        *,
        key: int,
        argv: list[str],
        cwd: str,
        env: dict[str, str],
        memory: int,
        identity: list[str],
        directory: str,
        files: dict[str, str | None],
        fds: list[int],
    ) -> None:
        try:
            self.prepare(directory, files)
            process = _spawn(argv, cwd, env, *fds)
        except (OSError, ValueError) as error:
            self.clean(directory)
            self.report(key=key, event="start_failed", reason=str(error))
            return
        finally:
            for fd in fds:
                os.close(fd)
        variables = frozenset(f"{name}={env[name]}".encode() for name in identity)
        attempt = Attempt(key, process, directory, variables, memory)
        self.attempts[process.pid] = self.by_key[key] = attempt
        self.report(key=key, event="started", pid=process.pid)

    def prepare(self, directory: str, files: dict[str, str | None]) -> None:
        """Write the files of a directory, unless they are there: writing and removing them is slow."""
        self.clean(directory)
        if directory not in self.directories:
            _write(files)
            paths = sorted({directory, *files, *map(os.path.dirname, files)})
            past = time.time_ns() - MODIFIED_BEFORE  # Any change sets a later time.
            for path in paths:
                os.utime(path, ns=(past, past))
            self.directories[directory] = _stats(paths)

    def clean(self, directory: str) -> None:
        """Remove a directory if anything in it has changed."""
        stats = self.directories.get(directory)
        if stats is None or _stats(stats) != stats:
            self.directories.pop(directory, None)
            shutil.rmtree(directory, ignore_errors=True)

    def do_stop(self, *, key: int, grace: float, fds: list[int]) -> None:
        attempt = self.by_key.get(key)
        if attempt is not None:
            _kill_group(attempt.pid, signal.SIGTERM if grace else signal.SIGKILL)
            # A process stopped by SIGTSTP handles SIGTERM only after SIGCONT.
            _kill_group(attempt.pid, signal.SIGCONT)
            attempt.kill_at = min(attempt.kill_at, time.monotonic() + grace)

    def do_signal(self, *, key: int, number: int, fds: list[int]) -> None:
        attempt = self.by_key.get(key)
        if attempt is not None:
            _kill_group(attempt.pid, number)

    def kill_overdue(self) -> None:
        now = time.monotonic()
        for attempt in self.attempts.values():
            if attempt.kill_at <= now:
                attempt.kill_at = float("inf")
                _kill_group(attempt.pid, signal.SIGKILL)

    def check_memory(self) -> None:
        for attempt in self.attempts.values():
            if attempt.memory and not attempt.used:
                used = sum(_resident_bytes(pid) for pid in _process_tree(attempt.pid))
                if used > attempt.memory:
                    attempt.used = used
                    _kill_group(attempt.pid, signal.SIGKILL)

    def collect_exited(self, *, block: bool = False) -> None:
        """Collect exited processes. When a main process exits, kill its descendants, as a container does."""
        while (found := _exited(block=block)) is not None:
            pid, code = found
            attempt = self.attempts.get(pid)
            if attempt is not None:
                # The group's id cannot be reused while the group has members.
                _kill_group(pid, signal.SIGKILL)
                self.reap(attempt, code)
            if block:
                return

    def reap(self, attempt: Attempt, code: int) -> None:
        attempt.process.returncode = code
        del self.attempts[attempt.pid], self.by_key[attempt.key]
        for orphan in _children() - self.attempts.keys():
            if not self.attempts or attempt.identity <= _environment(orphan):
                _kill(orphan)
        self.clean(attempt.directory)
        self.report(key=attempt.key, event="exited", code=code, used=attempt.used)


def _write(files: dict[str, str | None]) -> None:
    for name, text in files.items():
        path = Path(name)
        directory = path if text is None else path.parent
        directory.mkdir(parents=True, exist_ok=True)
        if text is not None:
            path.write_text(text)


def _stats(paths: Iterable[str]) -> Stats:
    """Return what changes with a file, or with an entry of a directory, by path."""
    stats: Stats = {}
    for path in paths:
        try:
            found = os.lstat(path)
        except OSError:
            stats[path] = ()
        else:
            stats[path] = (
                found.st_ino,
                found.st_mode,
                found.st_uid,
                found.st_size,
                found.st_mtime_ns,
                found.st_ctime_ns,
            )
    return stats


def _spawn(argv: list[str], cwd: str, env: dict[str, str], out: int, err: int) -> subprocess.Popen[bytes]:
    if not argv:
        raise ValueError("no command specified")
    return subprocess.Popen(  # noqa: S603 - running the command of a job is the purpose
        argv, cwd=cwd, env=env, stdin=subprocess.DEVNULL, stdout=out, stderr=err, start_new_session=True
    )


def _exited(*, block: bool) -> tuple[int, int] | None:
    try:
        pid, status = os.waitpid(-1, 0 if block else os.WNOHANG)
    except ChildProcessError:
        return None
    return (pid, os.waitstatus_to_exitcode(status)) if pid else None


def _kill_group(pid: int, number: int) -> None:
    try:
        os.killpg(pid, number)
    except (ProcessLookupError, PermissionError):
        # The group is gone; macOS reports "not permitted" for a group of zombies.
        return


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def _children(pid: int | None = None) -> set[int]:
    """Return the children of a process (default: this one); empty if the kernel does not list them."""
    children: set[int] = set()
    threads = f"/proc/{pid or 'self'}/task"
    try:
        for thread in os.listdir(threads):  # noqa: PTH208 - Path.glob takes ten times as long, after each task
            with suppress(OSError), open(f"{threads}/{thread}/children") as file:  # noqa: PTH123
                children.update(map(int, file.read().split()))
    except OSError:  # The process has ended, or the system has no /proc.
        return set()
    return children


def _process_tree(pid: int) -> Iterator[int]:
    yield pid
    for child in _children(pid):
        yield from _process_tree(child)


def _resident_bytes(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE_BYTES
    except OSError:
        return 0


def _environment(pid: int) -> frozenset[bytes]:
    try:
        return frozenset(Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"))
    except OSError:
        return frozenset()


def _receive_with_fds(connection: socket.socket) -> tuple[bytes, list[int]]:
    fds = array.array("i")
    try:
        data, ancillary, _, _ = connection.recvmsg(HEADER_BYTES, socket.CMSG_SPACE(2 * fds.itemsize))
    except ConnectionError:
        return b"", []
    for level, kind, content in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            fds.frombytes(content[: len(content) - len(content) % fds.itemsize])
    if data:
        data += _receive(connection, HEADER_BYTES - len(data))
    return data, list(fds)


def _receive(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        chunk = connection.recv(min(size - len(data), 1 << 20))
        if not chunk:
            return b""
        data += chunk
    return data


def _adopt_orphans() -> None:
    """Become the parent of orphaned descendants, in place of init, so that they can be found and killed."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


if __name__ == "__main__":
    _adopt_orphans()
    with socket.socket(fileno=int(sys.argv[1])) as connection:
        Supervisor(connection, sys.argv[2]).run()
