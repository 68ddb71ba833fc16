"""Google's Node libraries of Cloud Run, Cloud Scheduler and Cloud Logging, over gRPC and over REST."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.clients.emulator import emulator, home

PROGRAM = Path(__file__).parent / "node" / "clients.js"


def main() -> None:
    with emulator() as addresses:
        for transport, address in (("grpc", addresses.grpc), ("rest", addresses.http.removeprefix("http://"))):
            subprocess.run(["node", PROGRAM, transport, address], check=True, timeout=120)


if __name__ == "__main__":
    with home():
        main()
