"""A server in front of bqemulator that runs extract jobs itself, and passes on everything else.

bqemulator's own extract jobs write one file with a literal "*" in its name, outside of the storage emulator,
answer 500 for a missing table, accept a job id twice, and extract views. The rows come from bqemulator; the files
go to the storage emulator. Of concurrent requests, bqemulator answers some with rows too many or too few: it gets
one at a time.

Inferred, not seen at Google's service:

- the names of the files of a wildcard: "*" is replaced with twelve digits, from 0;
- an empty table gives one file, with the header of CSV;
- the state of a job is RUNNING in the response to its insertion;
- the text and the reason of the errors that answer an insertion: 404 of a table that does not exist, 400 of a view
  or an external table, 409 of a job id in use;
- an error of a job is in `errorResult`, with the reason "backendError";
- `destinationUriFileCounts` is absent until the job has ended;
- in JSON, integers are text and missing values are left out; in CSV, a missing value is an empty field;
- types in Parquet and Avro other than numbers, text and booleans: here they are text.
"""

from __future__ import annotations

import csv
import http.client
import io
import json
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

INSERT = re.compile(r"/bigquery/v2/projects/([^/]+)/jobs")
JOB = re.compile(r"/bigquery/v2/projects/([^/]+)/jobs/([^/]+)(/cancel)?")
WILDCARD = re.compile(r"gs://([^/*]+)/([^*]+)\*([^*]*)")
PASSED_ON = ("Content-Type", "Content-Encoding", "Location", "ETag")


class Refused(Exception):
    """An error of the service, as its response shows it."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.status, self.reason = status, reason

    @property
    def body(self) -> dict[str, Any]:
        error = {"reason": self.reason, "message": str(self), "domain": "global"}
        return {"error": {"code": self.status, "message": str(self), "errors": [error]}}


@dataclass
class Faults:
    """What goes wrong: by the name of a table, unless it says otherwise."""

    errors: dict[str, str] = field(default_factory=dict)  # The message of the error that its jobs end with.
    lost_responses: set[str] = field(default_factory=set)  # The job begins, and the connection is closed: once.
    held: dict[str, threading.Event] = field(default_factory=dict)  # The job is RUNNING until this is set.
    missing_rows: dict[str, int] = field(default_factory=dict)  # Rows that its files lack.
    before_insert: Callable[[str], None] = lambda table: None  # Called with each table, before its job begins.


class StandIn:
    """The extract jobs, and the servers that hold tables and files."""

    def __init__(self, bigquery: str, storage: str, rows_per_file: int = 1000) -> None:
        import google.cloud.bigquery as client
        import google.cloud.storage as storage_client
        from google.auth.credentials import AnonymousCredentials

        anonymous = AnonymousCredentials()
        options = {"api_endpoint": bigquery}
        self.tables = client.Client(project="acme", credentials=anonymous, client_options=options)
        self.files = storage_client.Client(
            project="acme", credentials=anonymous, client_options={"api_endpoint": storage}
        )
        # A connection that bqemulator has just closed, after five idle seconds, is no error of the table.
        self._retry = client.DEFAULT_RETRY.with_timeout(10)
        self.upstream = urlsplit(bigquery).netloc
        self.rows_per_file = rows_per_file
        self.faults = Faults()
        self.jobs: dict[str, dict[str, Any]] = {}
        self.one_at_a_time = threading.Lock()  # The requests to bqemulator.
        self._lock = threading.Lock()

    def extracted(self) -> list[str]:
        """Return the table of each extract job, in the order of the jobs."""
        return [job["configuration"]["extract"]["sourceTable"]["tableId"] for job in self.jobs.values()]

    def errors(self) -> list[str]:
        """Return the errors that extract jobs ended with."""
        ends = (job["status"].get("errorResult") for job in self.jobs.values())
        return [end["message"] for end in ends if end]

    def insert(self, project: str, resource: Mapping[str, Any]) -> dict[str, Any] | None:
        """Begin an extract job, and return it; None if the response is to be lost."""
        extract = resource["configuration"]["extract"]
        source, name = extract["sourceTable"], resource["jobReference"]["jobId"]
        table = source["tableId"]
        self.faults.before_insert(table)
        self._check_source(source)
        job = {
            "kind": "bigquery#job",
            "id": f"{project}:US.{name}",
            "jobReference": {"projectId": project, "jobId": name, "location": "US"},
            "configuration": {"jobType": "EXTRACT", "extract": extract},
            "statistics": {"creationTime": "1795600000000", "startTime": "1795600000000"},
            "status": {"state": "RUNNING"},
        }
        with self._lock:
            if name in self.jobs:
                raise Refused(409, "duplicate", f"Already Exists: Job {project}:US.{name}")
            self.jobs[name] = job
        running: dict[str, Any] = json.loads(json.dumps(job))
        if table in self.faults.held:
            threading.Thread(target=self._run, args=(job, self.faults.held[table]), daemon=True).start()
        else:
            self._run(job)
        if table in self.faults.lost_responses:
            self.faults.lost_responses.discard(table)
            return None
        return running

    def _check_source(self, source: Mapping[str, str]) -> None:
        from google.api_core.exceptions import NotFound

        name = "{projectId}:{datasetId}.{tableId}".format_map(source)
        try:
            with self.one_at_a_time:
                table = self.tables.get_table(name.replace(":", "."), retry=self._retry)
        except NotFound:
            raise Refused(404, "notFound", f"Not found: Table {name}") from None
        if table.table_type != "TABLE":
            message = f"{name} is not allowed for this operation because it is currently a {table.table_type}."
            raise Refused(400, "invalid", message)

    def _run(self, job: dict[str, Any], held: threading.Event | None = None) -> None:
        extract = job["configuration"]["extract"]
        if held:
            held.wait(60)
        try:
            count = self._write(extract)
        except Exception as error:  # noqa: BLE001  (whatever it is, the job ends with it)
            shown = {"reason": "backendError", "message": str(error)}
            job["status"] = {"state": "DONE", "errorResult": shown, "errors": [shown]}
            return
        job["statistics"] |= {
            "endTime": "1795600001000",
            "extract": {"destinationUriFileCounts": [str(count)]},
        }
        job["status"] = {"state": "DONE"}

    def _write(self, extract: Mapping[str, Any]) -> int:
        """Write the files, and return how many there are."""
        if message := self.faults.errors.get(extract["sourceTable"]["tableId"]):
            raise RuntimeError(message)
        (uri,) = extract["destinationUris"]
        match = WILDCARD.fullmatch(uri)
        assert match, f"expected one wildcard, got {uri}"
        bucket, before, after = match.groups()
        source = extract["sourceTable"]
        with self.one_at_a_time:
            table = self.tables.get_table(
                "{projectId}.{datasetId}.{tableId}".format_map(source), retry=self._retry
            )
            rows = [dict(row.items()) for row in self.tables.list_rows(table)] if table.num_rows else []
        rows = rows[: len(rows) - self.faults.missing_rows.get(source["tableId"], 0)]
        written = range(0, max(len(rows), 1), self.rows_per_file)
        for number, start in enumerate(written):
            content = WRITERS[extract["destinationFormat"]](table.schema, rows[start : start + self.rows_per_file])
            blob = self.files.bucket(bucket).blob(f"{before}{number:012}{after}")
            blob.upload_from_string(content, content_type="application/octet-stream")
        return len(written)


def _csv(schema: Sequence[Any], rows: Sequence[Mapping[str, Any]]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([column.name for column in schema])
    # csv writes a row of one empty value as "", BigQuery as an empty line.
    for row in rows:
        values = ["" if row[column.name] is None else row[column.name] for column in schema]
        writer.writerow(values) if values != [""] else text.write("\n")
    return text.getvalue().encode()


def _json(schema: Sequence[Any], rows: Sequence[Mapping[str, Any]]) -> bytes:
    lines = ({name: value for name, value in row.items() if value is not None} for row in rows)
    return "".join(json.dumps(line, default=str) + "\n" for line in lines).encode()


def _parquet(schema: Sequence[Any], rows: Sequence[Mapping[str, Any]]) -> bytes:
    import pyarrow
    from pyarrow import parquet

    arrays = {column.name: pyarrow.array([row[column.name] for row in rows]) for column in schema}
    file = io.BytesIO()
    parquet.write_table(pyarrow.table(arrays), file)
    return file.getvalue()


def _avro(schema: Sequence[Any], rows: Sequence[Mapping[str, Any]]) -> bytes:
    import fastavro

    kinds = {"INTEGER": "long", "FLOAT": "double", "BOOLEAN": "boolean"}
    plain = {c.name: kinds[c.field_type] for c in schema if c.field_type in kinds and c.mode != "REPEATED"}
    fields = [{"name": c.name, "type": ["null", plain.get(c.name, "string")]} for c in schema]
    records = [
        {name: value if value is None or name in plain else str(value) for name, value in row.items()}
        for row in rows
    ]
    file = io.BytesIO()
    fastavro.writer(file, {"type": "record", "name": "Root", "fields": fields}, records, sync_interval=200)
    return file.getvalue()


WRITERS = {"CSV": _csv, "NEWLINE_DELIMITED_JSON": _json, "PARQUET": _parquet, "AVRO": _avro}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # Else the body of each response waits for 40 ms.
    stand_in: StandIn

    def do_POST(self) -> None:
        path, body = urlsplit(self.path).path, self._read()
        if (match := INSERT.fullmatch(path)) and b'"extract"' in body:
            try:
                job = self.stand_in.insert(match[1], json.loads(body))
            except Refused as error:
                self._reply(error.status, error.body)
                return
            if job is None:
                self.close_connection = True
                return
            self._reply(200, job)
        elif (match := JOB.fullmatch(path)) and match[3] and (found := self.stand_in.jobs.get(match[2])):
            self._reply(200, {"job": found})
        else:
            self._pass_on(body)

    def do_GET(self) -> None:
        match = JOB.fullmatch(urlsplit(self.path).path)
        if match and (job := self.stand_in.jobs.get(match[2])):
            self._reply(200, job)
        elif match and match[2].startswith("export-"):
            error = Refused(404, "notFound", f"Not found: Job {match[1]}:{match[2]}")
            self._reply(error.status, error.body)
        else:
            self._pass_on(b"")

    def do_DELETE(self) -> None:
        self._pass_on(self._read())

    def _read(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _reply(self, status: int, value: Any) -> None:
        self._send(status, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _send(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _pass_on(self, body: bytes) -> None:
        headers = {name: value for name, value in self.headers.items() if name.lower() != "connection"}
        connection = http.client.HTTPConnection(self.stand_in.upstream, timeout=60)
        with self.stand_in.one_at_a_time, closing(connection) as upstream:
            upstream.request(self.command, self.path, body, headers)
            response = upstream.getresponse()
            content = response.read()
        kept = {name: value for name in PASSED_ON if (value := response.headers.get(name))}
        with suppress(ConnectionError):  # Of a task that was killed.
            self._send(response.status, content, kept)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  (the name in the base class)
        """Write no line for each request."""


@contextmanager
def serving(stand_in: StandIn) -> Iterator[str]:
    """Serve the stand-in during the block, and yield its URL."""
    handler = type("BoundHandler", (Handler,), {"stand_in": stand_in})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
