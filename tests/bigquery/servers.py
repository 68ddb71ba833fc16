"""BigQuery and Cloud Storage on the loopback interface: bqemulator, and gcp-storage-emulator."""

from __future__ import annotations

import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.servers.process import free_port
from tests.waiting import wait_for

PROJECT = "acme"


@contextmanager
def bigquery(home: Path) -> Iterator[str]:
    """Run bqemulator during the block, and yield its URL.

    DuckDB would fetch its spatial extension: a wheel has the same file, where DuckDB looks for it first.
    """
    import duckdb
    import duckdb_extension_spatial

    (packaged,) = Path(duckdb_extension_spatial.__file__).parent.rglob("spatial.duckdb_extension")
    expected = home / ".duckdb" / "extensions" / f"v{duckdb.__version__}" / "linux_amd64" / packaged.name
    expected.parent.mkdir(parents=True)
    expected.symlink_to(packaged)
    env = {
        "HOME": str(home),
        "BQEMU_GCS_LOCAL_ROOT": str(home),  # Of its own extract jobs, which no test uses.
        "BQEMU_ENABLE_FORMAT_EXTENSIONS": "false",  # It would fetch another extension.
        "BQEMU_UPLOAD_STAGING_DIR": str(home),
    }
    port = free_port()
    options = ["--rest-port", str(port), "--grpc-port", "0", "--project", PROJECT]
    url = f"http://127.0.0.1:{port}"
    with _running(home / "log", "bqemulator", "start", *options, env=env):
        _await(f"{url}/bigquery/v2/projects/{PROJECT}/datasets", home / "log")
        yield url


@contextmanager
def storage(home: Path) -> Iterator[str]:
    """Run gcp-storage-emulator during the block, and yield its URL."""
    home.mkdir(exist_ok=True)
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    options = ["--host", "127.0.0.1", "--port", str(port), "--in-memory", "--quiet"]
    with _running(home / "log", "gcp_storage_emulator", "start", *options):
        _await(f"{url}/storage/v1/b", home / "log")
        yield url


@contextmanager
def _running(log: Path, module: str, *options: str, env: Mapping[str, str] | None = None) -> Iterator[None]:
    command = [sys.executable, "-m", module, *options]
    with log.open("wb") as output:
        server = subprocess.Popen(command, env={**os.environ, **(env or {})}, stdout=output, stderr=output)
        try:
            yield
        finally:
            server.kill()
            server.wait()


def _await(url: str, log: Path) -> None:
    try:
        wait_for(lambda: _answers(url), seconds=60)
    except TimeoutError as error:
        raise RuntimeError(log.read_text()) from error


def _answers(url: str) -> bool:
    try:
        urllib.request.urlopen(url, timeout=5).close()
    except OSError:
        return False
    return True
