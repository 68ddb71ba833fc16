"""The servers of the session; a dataset and a bucket for each test."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest

from tests.bigquery import servers

if TYPE_CHECKING:
    from tests.bigquery.stand_in import StandIn

# `make test` has neither the clients nor the servers: `make test-bigquery` names this directory.
collect_ignore_glob = [] if find_spec("bqemulator") else ["test_*.py"]

COLUMNS = ("number", "INTEGER"), ("text", "STRING")


@dataclass
class Warehouse:
    """A dataset and a bucket."""

    stand_in: StandIn
    dataset: str
    bucket: str

    def table(self, name: str, rows: int = 3) -> None:
        """Create a table with a number of rows."""
        self.load(name, "".join(f'{number},"row ""{number}"",\nof many"\n' for number in range(rows)))

    def load(self, name: str, text: str, columns: Sequence[tuple[str, str]] = COLUMNS) -> None:
        """Create a table from CSV, or replace its rows."""
        import google.cloud.bigquery as bigquery

        config = bigquery.LoadJobConfig(
            source_format="CSV",
            skip_leading_rows=1,
            schema=[bigquery.SchemaField(column, kind) for column, kind in columns],
            allow_quoted_newlines=True,
            write_disposition="WRITE_TRUNCATE",
        )
        header = ",".join(column for column, _ in columns)
        content = io.BytesIO(f"{header}\n{text}".encode())
        target = f"{servers.PROJECT}.{self.dataset}.{name}"
        self.stand_in.tables.load_table_from_file(content, target, job_config=config, num_retries=0).result()

    def tables(self, names: Sequence[str]) -> None:
        """Create small tables, a hundred per request."""
        for start in range(0, len(names), 100):
            self.execute(
                ";\n".join(
                    f"CREATE TABLE {{dataset}}.{name} AS SELECT 1 AS number UNION ALL SELECT 2"
                    for name in names[start : start + 100]
                )
            )

    def execute(self, statement: str) -> None:
        self.stand_in.tables.query_and_wait(statement.format(dataset=self.dataset))

    def objects(self) -> list[str]:
        return sorted(blob.name for blob in self.stand_in.files.list_blobs(self.bucket))

    def read(self, name: str) -> bytes:
        content: bytes = self.stand_in.files.bucket(self.bucket).blob(name).download_as_bytes()
        return content

    def read_manifests(self) -> list[str]:
        """Return the folders that have a manifest."""
        suffix = "/manifest.json"
        return [name.removesuffix(suffix) for name in self.objects() if name.endswith(suffix)]

    def write(self, name: str, content: str) -> None:
        self.stand_in.files.bucket(self.bucket).blob(name).upload_from_string(content)


@pytest.fixture(scope="session")
def storage_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with servers.storage(tmp_path_factory.mktemp("storage")) as url:
        yield url


@pytest.fixture(scope="session")
def bigquery_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with servers.bigquery(tmp_path_factory.mktemp("bigquery")) as url:
        yield url


@pytest.fixture
def stand_in(bigquery_url: str, storage_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    """Serve BigQuery and Cloud Storage to the clients of this process."""
    from tests.bigquery.stand_in import StandIn, serving

    server = StandIn(bigquery_url, storage_url)
    with serving(server) as url:
        monkeypatch.setenv("BIGQUERY_EMULATOR_HOST", url)
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", storage_url)
        yield server


@pytest.fixture
def warehouse(stand_in: StandIn) -> Warehouse:
    name = f"w{uuid4().hex}"
    stand_in.tables.create_dataset(name, retry=None)
    stand_in.files.create_bucket(name)
    return Warehouse(stand_in, dataset=name, bucket=name)


@pytest.fixture
def clients(stand_in: StandIn) -> Any:
    from export.clients import Clients

    return Clients(servers.PROJECT)
