"""A TCP proxy that loses, delays and refuses what it should pass on."""

from __future__ import annotations

import contextlib
import socket
import threading
import time


class FaultProxy:
    """Stands before a server on this machine.

    `lose_replies` counts how many more replies are cut off after the request was passed on; `lag` delays each
    reply by seconds; `away` refuses connections, and ends those that are open; `silent` passes nothing on;
    `mute()` keeps the connections that are open, and never passes anything on in them.
    """

    def __init__(self, port: int) -> None:
        self.target = port
        self.lose_replies = 0
        self.lag = 0.0
        self.silent = False
        self._away = False
        self._open: set[socket.socket] = set()
        self._muted: set[socket.socket] = set()
        self._listen()

    def _listen(self, port: int = 0) -> None:
        self._listener = socket.create_server(("127.0.0.1", port))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def set_away(self, away: bool) -> None:
        """Leave, or come back on the same port."""
        if away:
            # Shut down first: closing alone would not wake the thread that accepts.
            with contextlib.suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
            self.cut()
        else:
            self._listen(self.port)

    def cut(self) -> None:
        """End all connections, as a move to another machine does."""
        for one in list(self._open):
            _close(one)

    def mute(self) -> None:
        """Lose what the open connections carry from now on; new ones work."""
        self._muted |= self._open

    def close(self) -> None:
        self.set_away(True)

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(("127.0.0.1", self.target))
            except OSError:
                _close(client)
                continue
            self._open |= {client, server}
            threading.Thread(target=self._pass, args=(client, server, False), daemon=True).start()
            threading.Thread(target=self._pass, args=(server, client, True), daemon=True).start()

    def _pass(self, source: socket.socket, sink: socket.socket, is_reply: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                while self.silent:
                    time.sleep(0.01)
                if source in self._muted:
                    continue
                if is_reply:
                    time.sleep(self.lag)
                    if self.lose_replies > 0:
                        self.lose_replies -= 1
                        break
                sink.sendall(data)
        for one in (source, sink):
            _close(one)
            self._open.discard(one)


def _close(one: socket.socket) -> None:
    with contextlib.suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
    one.close()
