"""Server-sent events as a client reads them, by the rules of the HTML standard."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from http.client import HTTPConnection
from typing import Any, NamedTuple


class Message(NamedTuple):
    """An event, or a comment, or a `retry`, each under its name."""

    name: str
    data: Any = None
    id: str = ""


def parse(lines: Iterable[str]) -> Iterator[Message]:
    """Yield the messages of these lines, which have no line ends."""
    fields: dict[str, list[str]] = {}
    for line in lines:
        name, _, value = line.partition(":")
        if name:
            fields.setdefault(name, []).append(value.removeprefix(" "))
        elif line:
            yield Message("comment")
        elif "data" in fields:
            yield Message(fields["event"][-1], json.loads("\n".join(fields["data"])), fields["id"][-1])
            fields = {}
        elif "retry" in fields:
            yield Message("retry", int(fields["retry"][-1]))
            fields = {}


def messages(content: bytes) -> list[Message]:
    """Return the messages of a whole response."""
    return list(parse(content.decode().replace("\r\n", "\n").replace("\r", "\n").split("\n")))


class Client:
    """Reads a stream of a server line by line, as they arrive."""

    def __init__(self, port: int, path: str, headers: dict[str, str]) -> None:
        self._connection = HTTPConnection("127.0.0.1", port, timeout=30)
        self._connection.request("GET", path, headers=headers)
        self.response = self._connection.getresponse()
        self._messages = parse(line.decode().rstrip("\n") for line in iter(self.response.readline, b""))

    def next(self) -> Message | None:
        """Return the next event or `retry`; None at the end."""
        return next((message for message in self._messages if message.name != "comment"), None)

    def rest(self) -> list[Message]:
        return list(iter(self.next, None))

    def close(self) -> None:
        self.response.close()
        self._connection.close()
