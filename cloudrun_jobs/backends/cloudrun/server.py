"""The server that Google's clients connect to."""

from __future__ import annotations

from typing import NamedTuple


class Server(NamedTuple):
    """Google's services, or a server on this machine that replaces all of them."""

    endpoint: str | None = None  #: "host:port" on this machine; None: Google's services.
    access_token: str | None = None  #: Identifies the caller to the server on this machine.

    def __repr__(self) -> str:
        return f"Server({self.endpoint!r})"
