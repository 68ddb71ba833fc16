"""Send requests from many clients at once: python -m benchmarks.http_clients ADDRESS PATH CALLS."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from threading import local

from benchmarks.measuring import timed

CLIENTS = 32
HEADERS = {"x-token": "the token of the benchmark", "Content-Type": "application/json"}
connections = local()


def call(address: str, path: str) -> None:
    if not hasattr(connections, "one"):
        connections.one = HTTPConnection(address, timeout=60)
    connections.one.request("POST", path, b'{"partner": 7}', HEADERS)
    response = connections.one.getresponse()
    body = response.read()
    assert response.status in {200, 202}, body


def main(address: str, path: str, calls: int) -> None:
    """Print the number of requests per second, after a round without measuring."""
    with ThreadPoolExecutor(CLIENTS) as pool:
        list(pool.map(lambda _: call(address, path), range(CLIENTS * 2)))
        seconds = timed(lambda: list(pool.map(lambda _: call(address, path), range(calls))))
    sys.stdout.write(f"{calls / seconds}")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
