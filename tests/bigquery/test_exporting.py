"""Exporting one table: files, verification, manifest, generations; joined extract jobs."""

from __future__ import annotations

import json
from typing import Any
from uuid import uuid4

import pytest

from export import exporting
from export.clients import Clients, ExportFailed
from export.exporting import export_table, job_id
from export.manifests import Manifest
from export.options import FORMATS, Export
from tests.bigquery.conftest import Warehouse
from tests.bigquery.servers import PROJECT

RUN, NEXT_RUN = "0b9d3c1e-5f8a-4f0e-9d59-0242ac120002", "1b9d3c1e-5f8a-4f0e-9d59-0242ac120002"


@pytest.fixture
def export(warehouse: Warehouse) -> Export:
    return Export(dataset=warehouse.dataset, bucket=warehouse.bucket, prefix="daily")


def run(clients: Clients, export: Export, table: str = "sales", run: str = RUN) -> Manifest:
    return export_table(clients, export, table, run, "US")


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("rows", [0, 1, 2500])
def test_table_becomes_files_and_a_manifest(
    warehouse: Warehouse, clients: Clients, suffix: str, rows: int
) -> None:
    """A table of any size is exported in any format, and each row is counted once."""
    warehouse.table("sales", rows)
    manifest = run(clients, Export(dataset=warehouse.dataset, bucket=warehouse.bucket, format=suffix))

    files = [f"sales/{RUN}/part-{number:012}.{suffix}" for number in range(max(-(-rows // 1000), 1))]
    assert warehouse.objects() == sorted([*files, "sales/manifest.json"])
    assert [file.name for file in manifest.files] == files
    assert manifest.rows == rows
    assert manifest.size == sum(len(warehouse.read(name)) for name in files)


def test_manifest_describes_the_export(warehouse: Warehouse, clients: Clients, export: Export) -> None:
    """The manifest is JSON, with the source, the run, and each file with its size, checksum and rows."""
    warehouse.table("sales", 2)
    run(clients, export)
    manifest = json.loads(warehouse.read("daily/sales/manifest.json"))

    [file] = manifest.pop("files")
    assert manifest.pop("exported_at").startswith("2026-")
    assert manifest == {
        "project": PROJECT,
        "dataset": warehouse.dataset,
        "table": "sales",
        "run": RUN,
        "format": "csv",
        "rows": 2,
        "size": file["size"],
        "verified": True,
        "replaces": [],
    }
    assert file["name"] == f"daily/sales/{RUN}/part-000000000000.csv"
    assert (file["rows"], len(file["crc32c"])) == (2, 8)


def test_previous_generation_is_replaced(warehouse: Warehouse, clients: Clients, export: Export) -> None:
    """The next run deletes the files of the one before, of its own table only, and nothing else in the folder."""
    for table in ("sales", "sales_eu"):
        warehouse.table(table)
        run(clients, export, table)
    kept = ["daily/sales/README.txt", f"daily/sales/nested/{RUN}/part-0.csv", f"daily/sales/{RUN}/notes.txt"]
    for name in kept:
        warehouse.write(name, "kept")
    run(clients, export, "sales", NEXT_RUN)

    assert warehouse.objects() == sorted(
        [
            *kept,
            f"daily/sales/{NEXT_RUN}/part-000000000000.csv",
            "daily/sales/manifest.json",
            f"daily/sales_eu/{RUN}/part-000000000000.csv",
            "daily/sales_eu/manifest.json",
        ]
    )


def test_previous_generation_stays_until_the_manifest_names_the_next(
    warehouse: Warehouse, clients: Clients, export: Export
) -> None:
    """If the next export fails, the previous one is still complete."""
    warehouse.table("sales")
    before = run(clients, export)
    warehouse.stand_in.faults.errors["sales"] = "Backend error."
    with pytest.raises(ExportFailed, match=r"^sales: Backend error\.$"):
        run(clients, export, run=NEXT_RUN)

    assert Manifest.decode(warehouse.read("daily/sales/manifest.json")) == before
    assert {file.name for file in before.files} <= set(warehouse.objects())


def test_files_of_a_run_that_died_are_deleted_by_the_next(
    warehouse: Warehouse, clients: Clients, export: Export
) -> None:
    """Files that no manifest names are removed with the previous generation."""
    warehouse.table("sales")
    warehouse.write(f"daily/sales/{uuid4()}/part-000000000000.csv", "number,text\n")
    run(clients, export)

    assert warehouse.objects() == [f"daily/sales/{RUN}/part-000000000000.csv", "daily/sales/manifest.json"]


def test_deletion_is_resumed(
    warehouse: Warehouse, clients: Clients, export: Export, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the task dies between manifest and deletion, its retry deletes only the generations that it replaces."""
    warehouse.table("sales")
    run(clients, export)
    with monkeypatch.context() as patched:
        patched.setattr(exporting.Folder, "delete", interrupt)
        with pytest.raises(KeyboardInterrupt):
            run(clients, export, run=NEXT_RUN)
    newer = f"daily/sales/{uuid4()}/part-000000000000.csv"
    warehouse.write(newer, "number,text\n")
    run(clients, export, run=NEXT_RUN)

    assert warehouse.objects() == sorted(
        [f"daily/sales/{NEXT_RUN}/part-000000000000.csv", newer, "daily/sales/manifest.json"]
    )
    assert warehouse.stand_in.extracted() == ["sales", "sales"]


def interrupt(*args: Any) -> None:
    raise KeyboardInterrupt


def test_repeated_export_is_not_extracted_again(warehouse: Warehouse, clients: Clients, export: Export) -> None:
    """A table that the run has exported is left as it is."""
    warehouse.table("sales")
    first = run(clients, export)
    warehouse.table("sales", 7)

    assert run(clients, export) == first
    assert warehouse.stand_in.extracted() == ["sales"]


def test_lost_response_is_joined(warehouse: Warehouse, clients: Clients, export: Export) -> None:
    """If the response to the insertion is lost, the client's retry gets 409, and the job is joined."""
    warehouse.table("sales")
    warehouse.stand_in.faults.lost_responses.add("sales")
    manifest = run(clients, export)

    assert manifest.rows == 3
    assert list(warehouse.stand_in.jobs) == [job_id(export, PROJECT, "sales", RUN, 1)]


def test_job_of_a_dead_task_is_joined(
    warehouse: Warehouse, clients: Clients, export: Export, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A task that takes over a table joins the extract job that the dead task started."""
    warehouse.table("sales")
    with monkeypatch.context() as patched:
        patched.setattr(exporting.Extraction, "wait", interrupt)
        with pytest.raises(KeyboardInterrupt):
            run(clients, export)

    assert run(clients, export).rows == 3
    assert warehouse.stand_in.extracted() == ["sales"]


def test_failed_job_is_followed_by_the_next_attempt(
    warehouse: Warehouse, clients: Clients, export: Export
) -> None:
    """A retry does not join a failed job: it starts the next attempt, with its own id."""
    warehouse.table("sales")
    warehouse.stand_in.faults.errors["sales"] = "Backend error."
    with pytest.raises(ExportFailed):
        run(clients, export)
    warehouse.stand_in.faults.errors.clear()
    run(clients, export)

    assert list(warehouse.stand_in.jobs) == [job_id(export, PROJECT, "sales", RUN, n) for n in (1, 2)]


def test_missing_rows_fail_the_table(warehouse: Warehouse, clients: Clients, export: Export) -> None:
    """Files with fewer rows than the table get no manifest; the retry replaces them."""
    warehouse.table("sales", 1001)
    warehouse.stand_in.faults.missing_rows["sales"] = 1
    with pytest.raises(ExportFailed, match=r"^sales: its files have 1000 rows, but the table has 1001"):
        run(clients, export)

    assert warehouse.objects() == [f"daily/sales/{RUN}/part-000000000000.csv"]

    warehouse.stand_in.faults.missing_rows.clear()

    assert run(clients, export).rows == 1001
    assert len(warehouse.objects()) == 3


def test_table_that_grows_meanwhile_is_exported(warehouse: Warehouse, clients: Clients, export: Export) -> None:
    """The files have the rows of the table as it was before or after the job."""
    warehouse.table("sales")
    warehouse.stand_in.faults.before_insert = lambda table: warehouse.table("sales", 5)

    assert run(clients, export).rows == 5


def test_without_verification_no_file_is_read(
    warehouse: Warehouse, clients: Clients, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With --no-verify the manifest has the row count of the table, and `verified` is false."""
    warehouse.table("sales", 2)
    monkeypatch.setattr("export.rows.count", None)
    export = Export(dataset=warehouse.dataset, bucket=warehouse.bucket, verify=False)
    manifest = run(clients, export)

    assert (manifest.rows, manifest.verified, manifest.files[0].rows) == (2, False, None)


def test_deleted_table_is_named(clients: Clients, export: Export) -> None:
    """A table that was deleted since it was listed fails with its name."""
    with pytest.raises(ExportFailed, match=r"^gone: 404 .*Not found: table"):
        run(clients, export, "gone")


def test_views_are_rejected_by_bigquery(warehouse: Warehouse, clients: Clients, export: Export) -> None:
    """The stand-in refuses to extract a view, as BigQuery does."""
    warehouse.table("sales")
    warehouse.execute("CREATE VIEW {dataset}.latest AS SELECT * FROM {dataset}.sales")
    with pytest.raises(ExportFailed, match=r"^latest: 400 .*currently a VIEW"):
        run(clients, export, "latest")


def test_foreign_manifest_is_kept(warehouse: Warehouse, clients: Clients, export: Export) -> None:
    """An object of the manifest's name that is not one is not overwritten."""
    warehouse.table("sales")
    warehouse.write("daily/sales/manifest.json", '{"name": "a web app"}')
    with pytest.raises(ExportFailed, match=r"^sales: gs://.*/daily/sales/manifest.json is not a manifest"):
        run(clients, export)

    assert warehouse.objects() == ["daily/sales/manifest.json"]


def test_slow_job_is_left(warehouse: Warehouse, stand_in: Any, export: Export) -> None:
    """An extract job that takes longer than the limit fails the table."""
    from threading import Event

    from export.clients import Limits

    warehouse.table("sales")
    stand_in.faults.held["sales"] = held = Event()
    with pytest.raises(ExportFailed, match=r"^sales: the extract job took more than 0\.2 s\.$"):
        run(Clients(PROJECT, Limits(extract=0.2)), export)
    held.set()
