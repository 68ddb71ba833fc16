"""The demo of `make demo-export`: four tasks on the emulator export 30 tables of a local BigQuery."""

from __future__ import annotations

import io
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from cloudrun_jobs.emulator import Emulator
from demo import PROJECT, create_job, manage, production_environment, run_session
from tests.bigquery import servers
from tests.bigquery.stand_in import StandIn, serving

if TYPE_CHECKING:
    from django.db.models import QuerySet

    from rates.models import Rate

TABLES = 30
DATASET, BUCKET = "rates", "exports"
SESSION = f"""
from export.management.commands.export_bigquery_tables import Command
operation = Command().using(tasks=4).delay(dataset="{DATASET}", bucket="{BUCKET}", prefix="daily")
operation.result(timeout=300)
"""


def load(stand_in: StandIn) -> None:
    """Create a table for each of the currencies with the most rates."""
    import django
    from django.db.models import Count

    django.setup()
    from rates.models import Rate

    stand_in.tables.create_dataset(DATASET)
    stand_in.files.create_bucket(BUCKET)
    counts = Rate.objects.values_list("currency").annotate(days=Count("pk")).order_by("-days", "currency")
    for currency, _ in counts[:TABLES]:
        load_table(stand_in, f"rates_{currency}", Rate.objects.filter(currency=currency).order_by("date"))
    print(f"created {TABLES} tables in the dataset {DATASET}", flush=True)


def load_table(stand_in: StandIn, table: str, rates: QuerySet[Rate]) -> None:
    import google.cloud.bigquery as bigquery

    rows = "".join(f"{rate.date},{rate.written}\n" for rate in rates)
    config = bigquery.LoadJobConfig(
        source_format="CSV",
        skip_leading_rows=1,
        schema=[bigquery.SchemaField("date", "DATE"), bigquery.SchemaField("value", "FLOAT")],
    )
    content = io.BytesIO(f"date,value\n{rows}".encode())
    stand_in.tables.load_table_from_file(content, f"{DATASET}.{table}", job_config=config).result()


def show_tree(stand_in: StandIn) -> None:
    """Print the objects in the bucket."""
    print(f"\n==> gs://{BUCKET}", flush=True)
    folders: list[str] = []
    for blob in stand_in.files.list_blobs(BUCKET):
        *path, name = blob.name.split("/")
        for depth, folder in enumerate(path):
            if folders[: depth + 1] != path[: depth + 1]:
                print(f"{'  ' * depth}{folder}/")
        folders = path
        print(f"{'  ' * len(path)}{name}  {blob.size} bytes")


def main() -> None:
    os.environ["DJANGO_SETTINGS_MODULE"] = "example.settings"
    manage("The database", "migrate", "--verbosity=0")
    manage("The rates", "collect_rates")
    print("\n==> A local BigQuery and a local Cloud Storage", flush=True)
    with (
        tempfile.TemporaryDirectory() as home,
        servers.bigquery(Path(home, "bigquery")) as bigquery,
        servers.storage(Path(home, "storage")) as storage,
        Emulator(directory=PROJECT) as emulator,
    ):
        stand_in = StandIn(bigquery, storage, rows_per_file=5000)
        load(stand_in)
        with serving(stand_in) as url:
            hosts = {"BIGQUERY_EMULATOR_HOST": url, "STORAGE_EMULATOR_HOST": storage}
            create_job(emulator, "export-bigquery-tables-production", PROJECT_ID=servers.PROJECT, **hosts)
            run_session("Four tasks export them", SESSION, production_environment(emulator))
        show_tree(stand_in)


if __name__ == "__main__":
    main()
