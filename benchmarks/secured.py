"""Put TLS and a metadata server's token in front of the emulator, as Google requires of every caller."""

from __future__ import annotations

import asyncio
import json
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Thread

SCOPE = "https://www.googleapis.com/auth/cloud-platform"
ACCOUNTS = "/computeMetadata/v1/instance/service-accounts"
EMAIL = "web@acme.iam"
INFO = json.dumps({"aliases": ["default"], "email": EMAIL, "scopes": [SCOPE]})
ACCESS = json.dumps({"access_token": "token", "expires_in": 3599, "token_type": "Bearer"})
METADATA = {
    "/": "",
    "/computeMetadata/v1/project/project-id": "acme",
    "/computeMetadata/v1/universe/universe-domain": "googleapis.com",
    **{f"{ACCOUNTS}/{name}/": INFO for name in ("default", EMAIL)},
    **{f"{ACCOUNTS}/{name}/token": ACCESS for name in ("default", EMAIL)},
}


@contextmanager
def secured(endpoint: str) -> Iterator[dict[str, str]]:
    """Serve the endpoint's gRPC over TLS while the block runs; yield the environment in which clients find it."""
    with TemporaryDirectory() as directory, _metadata() as metadata:
        certificate, key = _certificate(Path(directory))
        with _tls(endpoint, certificate, key) as address:
            yield {
                "BENCHMARK_SECURED": address,
                "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH": str(certificate),
                "GCE_METADATA_HOST": metadata,
                "GCE_METADATA_IP": metadata,
                "CLOUDSDK_CONFIG": directory,  # No credentials of this machine's user.
                "NO_PROXY": "*",
            }


def _certificate(directory: Path) -> tuple[Path, Path]:
    certificate, key = directory / "certificate.pem", directory / "key.pem"
    kind = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    name = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    files = ["-keyout", str(key), "-out", str(certificate)]
    subprocess.run(["openssl", "req", "-x509", *kind, *name, *files], check=True, capture_output=True)
    return certificate, key


@contextmanager
def _tls(endpoint: str, certificate: Path, key: Path) -> Iterator[str]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    context.set_alpn_protocols(["h2"])  # gRPC hangs up on a server that does not choose it.
    loop = asyncio.new_event_loop()

    async def serve(client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        server, to_server = await asyncio.open_connection(*endpoint.split(":"))
        await asyncio.gather(_pass_on(client, to_server), _pass_on(server, to_client))

    Thread(target=loop.run_forever, daemon=True).start()
    starting = asyncio.start_server(serve, "127.0.0.1", ssl=context)
    server = asyncio.run_coroutine_threadsafe(starting, loop).result()
    try:
        yield f"localhost:{server.sockets[0].getsockname()[1]}"
    finally:
        loop.call_soon_threadsafe(server.close)


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(65_536):
            writer.write(data)
    writer.close()


@contextmanager
def _metadata() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Metadata) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()


class _Metadata(BaseHTTPRequestHandler):
    """Answers as the metadata server of a container does."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # It would hold back the body of each answer for 40 ms.

    def do_GET(self) -> None:
        found = METADATA.get(self.path.partition("?")[0])
        body = (found or "").encode()
        self.send_response(404 if found is None else 200)
        self.send_header("Metadata-Flavor", "Google")
        self.send_header("Content-Type", "application/json" if body[:1] == b"{" else "text/plain")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        """Log nothing."""
