"""`export_bigquery_tables`, inline: its result, its log, its options."""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import Any

import pytest
from django.core.management.base import CommandError

from cloudrun_jobs.exceptions import JobFailed
from cloudrun_jobs.models import JobRun
from export.management.commands.export_bigquery_tables import Command
from tests.bigquery.conftest import Warehouse
from tests.bigquery.servers import PROJECT
from tests.bigquery.test_tables import NESTED


@pytest.fixture(autouse=True)
def _records(transactional_db: None) -> None:
    """Commit what tests write: `claim()` is rejected in a transaction."""


def export(warehouse: Warehouse, **options: Any) -> JobRun:
    """Run the export inline, and return the record of its run."""
    place = {"dataset": warehouse.dataset, "bucket": warehouse.bucket, "project": PROJECT}
    with suppress(JobFailed):
        Command().delay(**place, **options)
    return JobRun.objects.latest("created_at")


def test_every_table_is_exported(warehouse: Warehouse) -> None:
    """The result counts tables, rows and bytes, and lists what was skipped."""
    for table, rows in (("rates", 2), ("sales", 3)):
        warehouse.table(table, rows)
    warehouse.execute("CREATE VIEW {dataset}.latest AS SELECT * FROM {dataset}.rates")
    run = export(warehouse)

    files = [name for name in warehouse.objects() if name.endswith(".csv")]
    assert files == [f"{table}/{run.pk}/part-000000000000.csv" for table in ("rates", "sales")]
    assert run.return_value == {
        "exported": 2,
        "skipped": [{"table": "latest", "type": "VIEW"}],
        "rows": 5,
        "bytes": sum(len(warehouse.read(name)) for name in files),
        "errors": [],
    }


def test_log_has_a_line_for_each_table(warehouse: Warehouse, caplog: pytest.LogCaptureFixture) -> None:
    """Exported tables log INFO, skipped ones WARNING, failed ones ERROR; each record has the table."""
    for table in ("rates", "sales"):
        warehouse.table(table)
    warehouse.execute("CREATE VIEW {dataset}.latest AS SELECT * FROM {dataset}.rates")
    warehouse.stand_in.faults.errors["sales"] = "Backend error."
    with caplog.at_level(logging.INFO, logger="export"):
        export(warehouse)

    logged = {
        (record.levelname, vars(record)["table"], record.getMessage())
        for record in caplog.records
        if record.name == "export"
    }
    assert logged == {
        ("INFO", "rates", "rates is exported (rows: 3, bytes: 81, files: 1)"),
        ("WARNING", "latest", "latest is skipped: it is a VIEW"),
        ("ERROR", "sales", "sales: Backend error."),
    }


def test_failed_table_fails_the_run(warehouse: Warehouse) -> None:
    """The other tables are exported, and the failed one is in the result."""
    for table in ("rates", "sales", "visits"):
        warehouse.table(table)
    warehouse.stand_in.faults.errors["rates"] = "Backend error."
    run = export(warehouse)

    assert (run.status, run.reason) == ("failed", "items")
    assert warehouse.read_manifests() == ["sales", "visits"]
    assert run.return_value["errors"] == [{"table": "rates", "error": "rates: Backend error."}]


def test_table_that_recovers_is_no_error(warehouse: Warehouse) -> None:
    """A table that fails once is retried with its next extract job."""
    warehouse.table("sales")
    faults = warehouse.stand_in.faults
    faults.errors["sales"] = "Backend error."
    faults.before_insert = lambda table: len(warehouse.stand_in.jobs) == 1 and faults.errors.clear()
    run = export(warehouse)

    assert (run.status, run.return_value["exported"], run.return_value["errors"]) == ("succeeded", 1, [])
    assert warehouse.stand_in.extracted() == ["sales", "sales"]


def test_nested_columns_are_refused_before_the_first_extract(warehouse: Warehouse) -> None:
    """With CSV, a table with nested columns fails the run before any export; the error names the column."""
    warehouse.table("a_table")
    warehouse.execute(NESTED % "orders")
    with pytest.raises(CommandError, match=r"orders\.parts \(ARRAY<INT64>\).*--format json, avro or parquet"):
        export(warehouse)

    assert warehouse.stand_in.extracted() == []
    assert export(warehouse, format="avro").return_value["exported"] == 2


def test_include_leaves_tables_out(warehouse: Warehouse) -> None:
    """Only the tables that match are exported."""
    for table in ("rates", "sales"):
        warehouse.table(table)
    export(warehouse, include="s*", prefix="daily")

    assert warehouse.read_manifests() == ["daily/sales"]


def test_dry_run_exports_nothing(warehouse: Warehouse, capsys: pytest.CaptureFixture[str]) -> None:
    """It prints the tables that would be exported, and their destinations."""
    warehouse.table("sales")
    run = export(warehouse, dry_run=True, prefix="daily")

    assert f"Would export sales to gs://{warehouse.bucket}/daily/sales/\n" in capsys.readouterr().out
    assert (warehouse.objects(), warehouse.stand_in.extracted()) == ([], [])
    assert run.return_value["exported"] == 0


def test_variables_are_defaults(warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch) -> None:
    """The variables of the system that this job replaces are the defaults of the options."""
    warehouse.table("sales")
    monkeypatch.setenv("PROJECT_ID", PROJECT)
    monkeypatch.setenv("SOURCE_DATASET", warehouse.dataset)
    monkeypatch.setenv("DESTINATION_BUCKET", warehouse.bucket)

    assert Command().delay().result()["exported"] == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, r"^Pass --dataset, or set the variable SOURCE_DATASET\.$"),
        ({"dataset": "d"}, r"^Pass --bucket, or set the variable DESTINATION_BUCKET\.$"),
        ({"dataset": "d", "bucket": "gs://b"}, r"^--bucket: expected the name of a bucket, without gs://"),
    ],
)
def test_invalid_options_are_named(options: dict[str, str], message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An option that is missing or invalid ends the job with a sentence."""
    for variable in ("SOURCE_DATASET", "DESTINATION_BUCKET"):
        monkeypatch.delenv(variable, raising=False)
    with pytest.raises(CommandError, match=message):
        Command().delay(**options)


def test_job_is_disabled_without_its_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """A deployment without a dataset and a bucket has no job and no schedule."""
    assert not Command().is_enabled

    monkeypatch.setattr(Command, "env_vars", {"SOURCE_DATASET": "d", "DESTINATION_BUCKET": "b"})

    assert Command().is_enabled
