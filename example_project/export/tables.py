"""List the tables of a dataset, and reject columns that the format cannot hold."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import NamedTuple

from export.clients import Clients, failing_as
from export.options import Export

NESTED_COLUMNS = """
SELECT table_name, column_name, data_type
FROM `{project}`.`{dataset}`.INFORMATION_SCHEMA.COLUMNS
WHERE data_type LIKE 'ARRAY%' OR data_type LIKE 'STRUCT%'
ORDER BY table_name, ordinal_position
"""


class Skipped(NamedTuple):
    """A table without data of its own, such as a view."""

    table: str
    type: str


@dataclass(frozen=True, slots=True)
class Listing:
    """The tables of a dataset, sorted by name."""

    tables: list[str]
    skipped: list[Skipped]


class NestedColumns(Exception):
    """A table has nested columns, which the format cannot hold."""


def list_tables(clients: Clients, export: Export, include: str = "*") -> Listing:
    """Return the tables whose name matches the pattern."""
    with failing_as(f"The tables of {export.dataset} cannot be listed"):
        dataset = f"{clients.project}.{export.dataset}"
        found = sorted(
            (item.table_id, item.table_type)
            for item in clients.bigquery.list_tables(dataset, **clients.bigquery_options)
        )
    matching = [(table, kind) for table, kind in found if fnmatchcase(table, include)]
    return Listing(
        [table for table, kind in matching if kind == "TABLE"],
        [Skipped(table, kind) for table, kind in matching if kind != "TABLE"],
    )


def check_columns(clients: Clients, export: Export, listing: Listing) -> None:
    """Raise `NestedColumns` if the format is CSV and a table has columns that CSV cannot hold."""
    if export.format != "csv" or not listing.tables:
        return
    query = NESTED_COLUMNS.format(project=clients.project, dataset=export.dataset)
    with failing_as(f"The columns of {export.dataset} cannot be listed"):
        options = clients.bigquery_options
        rows = clients.bigquery.query_and_wait(
            query,
            location=location(clients, export),
            retry=options["retry"],
            job_retry=None,
            api_timeout=options["timeout"],
            wait_timeout=clients.limits.retries,
        )
        tables = set(listing.tables)
        nested = [f"{table}.{column} ({kind})" for table, column, kind in rows if table in tables]
    if nested:
        others = f" and {len(nested) - 1} more" if nested[1:] else ""
        raise NestedColumns(
            f"CSV cannot hold nested columns: {nested[0]}{others}. Pass --format json, avro or parquet, or leave "
            "tables out with --include."
        )


def location(clients: Clients, export: Export) -> str:
    """Return the location of the dataset, where its jobs must run."""
    dataset = f"{clients.project}.{export.dataset}"
    with failing_as(f"The dataset {export.dataset} is unavailable"):
        return str(clients.bigquery.get_dataset(dataset, **clients.bigquery_options).location)
