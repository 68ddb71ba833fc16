"""The precondition of manifests, and their summary."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from export.clients import Clients, ExportFailed
from export.exporting import export_table
from export.manifests import Folder, Found, Manifest, summary
from export.options import Export
from tests.bigquery.conftest import Warehouse
from tests.bigquery.servers import PROJECT
from tests.bigquery.test_deadlines import EXPORT, MANIFEST
from tests.bigquery.test_exporting import RUN

OTHER_RUN = "5d0c2a77-5f8a-4f0e-9d59-0242ac120002"


class OneObject(BaseHTTPRequestHandler):
    """Cloud Storage with one object, which honours `ifGenerationMatch`: gcp-storage-emulator ignores it."""

    stored: tuple[int, bytes]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        number, _ = type(self).stored
        wanted = parse_qs(urlsplit(self.path).query).get("ifGenerationMatch")
        if wanted and wanted != [str(number)]:
            self._send(412, b'{"error": {"message": "conditionNotMet"}}')
            return
        type(self).stored = number + 1, body.split(b"\r\n\r\n")[2].rpartition(b"\r\n--")[0]
        self._send(200, b"{}")

    def do_GET(self) -> None:
        number, content = type(self).stored
        is_download = "alt=media" in self.path
        described = json.dumps({"name": "sales/manifest.json", "generation": str(number)}).encode()
        self._send(200, content if is_download else described)

    def _send(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  (the name of the base class)
        """Write no line for each request."""


@contextmanager
def one_object(number: int, content: str) -> Iterator[str]:
    handler = type("BoundHandler", (OneObject,), {"stored": (number, content.encode())})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture
def folder(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Folder]:
    """The folder of a table whose manifest another or the same run has replaced: its number is 7."""
    stored = Manifest(**{**vars_of(MANIFEST), "run": request.param})
    with one_object(7, stored.encode()) as url:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", url)
        yield Folder(Clients(PROJECT), EXPORT, "sales")


def vars_of(manifest: Manifest) -> dict[str, Any]:
    return {name: getattr(manifest, name) for name in manifest.__dataclass_fields__}


@pytest.mark.parametrize("folder", [OTHER_RUN], indirect=True)
def test_manifest_is_written_if_it_is_the_one_that_was_read(folder: Folder) -> None:
    """The number that was read is the precondition of the write."""
    folder.write_manifest(MANIFEST, folder.read_manifest())

    assert folder.read_manifest() == Found(MANIFEST, 8)


@pytest.mark.parametrize("folder", [OTHER_RUN], indirect=True)
@pytest.mark.parametrize("number", [0, 6])
def test_manifest_of_another_run_is_not_overwritten(folder: Folder, number: int) -> None:
    """If the manifest was created or replaced meanwhile, the table fails, and the other manifest stays."""
    with pytest.raises(ExportFailed, match=r"^sales: another run has replaced its manifest since this one began"):
        folder.write_manifest(MANIFEST, Found(None, number))

    assert folder.read_manifest().number == 7


@pytest.mark.parametrize("folder", [RUN], indirect=True)
def test_lost_response_to_the_manifest_is_success(folder: Folder) -> None:
    """A write whose response is lost is retried and rejected; the manifest that it finds is its own."""
    assert folder.write_manifest(MANIFEST, Found(None, 6)) == MANIFEST


def test_summary_adds_up_the_manifests_of_the_runs(warehouse: Warehouse, clients: Clients) -> None:
    """Manifests of other runs, and of other prefixes, are not counted."""
    export = Export(dataset=warehouse.dataset, bucket=warehouse.bucket, prefix="a/b")
    elsewhere = Export(dataset=warehouse.dataset, bucket=warehouse.bucket, prefix="a")
    for table, rows, run in (("t1", 1, RUN), ("t2", 2, RUN), ("t3", 4, OTHER_RUN)):
        warehouse.table(table, rows)
        export_table(clients, export, table, run, "US")
        export_table(clients, elsewhere, table, run, "US")
    found = summary(clients, export, {RUN})

    assert (found.tables, found.rows) == ({"t1", "t2"}, 3)
    assert found.size == sum(len(warehouse.read(f"a/b/{t}/{RUN}/part-000000000000.csv")) for t in ("t1", "t2"))
