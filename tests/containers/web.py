"""Talking to a web server on the loopback address."""

from __future__ import annotations

import socket
import urllib.error
import urllib.request


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def get(url: str, **headers: str) -> tuple[int, str, str]:
    """Return the status, the Server header and the body."""
    request = urllib.request.Request(url, headers=headers)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=20) as answer:
            return answer.status, answer.headers["Server"], answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers["Server"], error.read().decode()


def answers(url: str) -> bool:
    """Return True if the page is served; nginx answers 502 until gunicorn is up."""
    try:
        return get(url)[0] == 200
    except OSError:
        return False


def refuses(url: str) -> bool:
    """Return True if the server refuses connections."""
    host, _, port = url.removeprefix("http://").partition(":")
    with socket.socket() as caller:
        return caller.connect_ex((host, int(port))) != 0
