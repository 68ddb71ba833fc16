"""Listing tables, and the columns that CSV cannot hold; the options of an export."""

from __future__ import annotations

from uuid import uuid4

import google.cloud.bigquery as bigquery
import pytest

from export.clients import Clients, ExportFailed
from export.options import Export, InvalidExport
from export.tables import NestedColumns, Skipped, check_columns, list_tables, location
from tests.bigquery.conftest import Warehouse
from tests.bigquery.servers import PROJECT
from tests.bigquery.stand_in import StandIn

NESTED = "CREATE TABLE {dataset}.%s AS SELECT 1 AS number, [1, 2] AS parts, STRUCT(1 AS x) AS point"


def export_of(warehouse: Warehouse, kind: str = "csv") -> Export:
    return Export(dataset=warehouse.dataset, bucket=warehouse.bucket, format=kind)


def test_views_are_skipped(warehouse: Warehouse, clients: Clients) -> None:
    """Tables are sorted by name; views and the like are listed as skipped, with their type."""
    for table in ("sales", "rates", "other"):
        warehouse.table(table)
    warehouse.execute("CREATE VIEW {dataset}.rates_view AS SELECT * FROM {dataset}.rates")
    listing = list_tables(clients, export_of(warehouse))

    assert listing.tables == ["other", "rates", "sales"]
    assert listing.skipped == [Skipped("rates_view", "VIEW")]


def test_include_selects_by_name(warehouse: Warehouse, clients: Clients) -> None:
    """The pattern is a shell's, with upper and lower case."""
    for table in ("sales_eu", "sales_us", "Sales_uk"):
        warehouse.table(table)

    assert list_tables(clients, export_of(warehouse), "sales_*").tables == ["sales_eu", "sales_us"]


def test_missing_dataset_is_named(clients: Clients) -> None:
    """The error names the dataset."""
    export = Export(dataset="nowhere", bucket="b")
    with pytest.raises(ExportFailed, match=r"^The dataset nowhere is unavailable: 404"):
        location(clients, export)


def test_location_is_that_of_the_dataset(stand_in: StandIn, clients: Clients) -> None:
    """Extract jobs run where the dataset is, not in the US."""
    dataset = bigquery.Dataset(f"{PROJECT}.tokyo_{uuid4().hex}")
    dataset.location = "asia-northeast1"
    stand_in.tables.create_dataset(dataset)

    assert location(clients, Export(dataset=dataset.dataset_id, bucket="b")) == "asia-northeast1"


def test_nested_columns_are_refused_with_csv(warehouse: Warehouse, clients: Clients) -> None:
    """The error names the first column, its type and the formats; tables that are left out do not matter."""
    warehouse.table("sales")
    warehouse.execute(NESTED % "orders")
    listing = list_tables(clients, export_of(warehouse))
    expected = r"orders\.parts \(ARRAY<INT64>\) and 1 more\. Pass --format json, avro or parquet"
    with pytest.raises(NestedColumns, match=expected):
        check_columns(clients, export_of(warehouse), listing)

    check_columns(clients, export_of(warehouse), list_tables(clients, export_of(warehouse), "s*"))


@pytest.mark.parametrize("kind", ["json", "parquet", "avro"])
def test_other_formats_hold_nested_columns(warehouse: Warehouse, clients: Clients, kind: str) -> None:
    """Only CSV has no nesting."""
    warehouse.execute(NESTED % "orders")
    export = export_of(warehouse, kind)

    check_columns(clients, export, list_tables(clients, export))


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("dataset", "acme.sales"),
        ("dataset", "a`b"),
        ("dataset", ""),
        ("project", "Acme`"),
        ("bucket", "gs://b"),
        ("bucket", ""),
        ("prefix", "gs://b/daily"),
        ("prefix", "daily*"),
        ("prefix", "da[i]ly"),
        ("prefix", "daily//sales"),
        ("prefix", "da\nily"),
    ],
)
def test_invalid_option_is_named(option: str, value: str) -> None:
    """Values that BigQuery or Cloud Storage would reject, or read as a pattern, are rejected at once."""
    with pytest.raises(InvalidExport, match=f"^--{option}: "):
        Export(**{"dataset": "d", "bucket": "b", option: value})


@pytest.mark.parametrize(("prefix", "folder"), [("", "t/"), ("daily", "daily/t/"), ("/a/b/", "a/b/t/")])
def test_prefix_becomes_a_folder(prefix: str, folder: str) -> None:
    """Slashes at the ends of a prefix do not matter."""
    assert Export(dataset="d", bucket="b", prefix=prefix).folder("t") == folder
