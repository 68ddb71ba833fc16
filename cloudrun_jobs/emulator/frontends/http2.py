"""Answer a gRPC client that connected to the HTTP port: fail each of its calls with a message."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from io import BufferedIOBase

# The first line of the connection preface looks like a request; the rest follows it.
PREFACE_LINE = b"PRI * HTTP/2.0\r\n"
PREFACE_REST = b"\r\nSM\r\n\r\n"
HEADER_BYTES = 9
MAX_FRAME_BYTES = 1 << 14  # Larger frames need a setting that is never sent.
ACK, END_STREAM, END_HEADERS = 0x1, 0x1, 0x4


class Frame(enum.IntEnum):
    HEADERS = 0x1
    SETTINGS = 0x4
    PING = 0x6
    GOAWAY = 0x7
    CONTINUATION = 0x9


def fail_calls(reader: BufferedIOBase, writer: BufferedIOBase, status: int, message: str) -> None:
    """Answer every call on this connection with a gRPC status, until the client closes it."""
    if reader.read(len(PREFACE_REST)) != PREFACE_REST:
        return
    writer.write(_frame(Frame.SETTINGS))
    fields = {
        ":status": "200",
        "content-type": "application/grpc",
        "grpc-status": str(status),
        "grpc-message": message,
    }
    headers = b"".join(_field(name, value) for name, value in fields.items())
    for kind, flags, stream, payload in _frames(reader):
        if kind in (Frame.HEADERS, Frame.CONTINUATION) and flags & END_HEADERS:
            writer.write(_frame(Frame.HEADERS, END_STREAM | END_HEADERS, stream, headers))
        elif kind == Frame.SETTINGS and not flags & ACK:
            writer.write(_frame(Frame.SETTINGS, ACK))
        elif kind == Frame.PING and not flags & ACK:
            writer.write(_frame(Frame.PING, ACK, 0, payload))
        elif kind == Frame.GOAWAY:
            return


def _frames(reader: BufferedIOBase) -> Iterator[tuple[int, int, int, bytes]]:
    """Yield the type, flags, stream and payload of each frame."""
    while len(header := reader.read(HEADER_BYTES)) == HEADER_BYTES:
        size = int.from_bytes(header[:3], "big")
        if size > MAX_FRAME_BYTES:
            return
        yield header[3], header[4], int.from_bytes(header[5:], "big") & 0x7FFFFFFF, reader.read(size)


def _frame(kind: Frame, flags: int = 0, stream: int = 0, payload: bytes = b"") -> bytes:
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload


def _field(name: str, value: str) -> bytes:
    """Encode a header field of less than 127 bytes as a literal, without index and without compression."""
    return b"\0" + b"".join(bytes((len(text),)) + text.encode() for text in (name, value))
