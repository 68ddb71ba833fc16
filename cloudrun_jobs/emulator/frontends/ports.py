"""The public ports: each relays HTTP/2 to the gRPC server and HTTP/1 to the HTTP server."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading

PREFACE_START = b"PRI"  # Starts HTTP/2; no method of HTTP/1 starts with it.
TLS_HANDSHAKE = 0x16
CHUNK_BYTES = 1 << 16
FIRST_BYTES_TIMEOUT = 60.0  # seconds


class PortInUse(OSError):
    """Another program listens on the port."""

    def __init__(self, port: int) -> None:
        super().__init__(f"port {port} is in use; choose another, or 0 for any free one")


class Ports:
    def __init__(self) -> None:
        self._sockets: list[socket.socket] = []
        # The event loop refers to a task only weakly once the client has sent everything.
        self._connections: set[asyncio.Task[None] | None] = set()
        self._serving = threading.Event()
        self._stopped = asyncio.Event()

    def bind(self, port: int) -> int:
        """Listen on the port, or on a free one if it is 0; return its number."""
        try:
            listener = socket.create_server(("127.0.0.1", port), backlog=128)
        except OSError as error:
            raise PortInUse(port) from error
        # Connections inherit it. asyncio sets it on sockets that name their protocol, which this one does not.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._sockets.append(listener)
        return int(listener.getsockname()[1])

    def serve(self, grpc_port: int, http_port: int) -> None:
        """Relay to the servers on these ports, in a thread."""
        self._grpc_port = grpc_port
        self._http_port = http_port
        self._thread = threading.Thread(
            target=asyncio.run, args=(self._serve(),), name="emulator-ports", daemon=True
        )
        self._thread.start()
        self._serving.wait()

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._stopped.set)
        self._thread.join()

    def close(self) -> None:
        """Release the ports without having served."""
        for listener in self._sockets:
            listener.close()

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        servers = [await asyncio.start_server(self._accepted, sock=listener) for listener in self._sockets]
        self._serving.set()
        await self._stopped.wait()
        for server in servers:
            server.close()  # On return, the loop cancels the connections.

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        self._connections.add(task)
        try:
            with contextlib.closing(writer), contextlib.suppress(OSError, EOFError):
                await self._serve_connection(reader, writer)
        finally:
            self._connections.discard(task)

    async def _serve_connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        first = await asyncio.wait_for(reader.readexactly(len(PREFACE_START)), FIRST_BYTES_TIMEOUT)
        if first[0] != TLS_HANDSHAKE:
            server_port = self._grpc_port if first == PREFACE_START else self._http_port
            await _relay(first, reader, writer, server_port)


async def _relay(
    first: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, server_port: int
) -> None:
    server_reader, server_writer = await asyncio.open_connection("127.0.0.1", server_port)
    with contextlib.closing(server_writer):
        server_writer.write(first)
        sending = asyncio.create_task(_copy(reader, server_writer))
        try:
            # Until the server closes it: a client that has sent everything still waits for the response.
            await _copy(server_reader, writer)
        finally:
            sending.cancel()
            await asyncio.wait([sending])


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while chunk := await reader.read(CHUNK_BYTES):
        writer.write(chunk)
        await writer.drain()
    writer.write_eof()
