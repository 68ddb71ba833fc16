"""Export the tables of a BigQuery dataset to Cloud Storage, on any number of tasks."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from functools import cache
from typing import Any

from django.core.management.base import CommandError, CommandParser

from cloudrun_jobs import CloudRunJobs
from export.clients import Clients, ExportFailed
from export.options import FORMATS, Export, InvalidExport

VARIABLES = ("PROJECT_ID", "SOURCE_DATASET", "DESTINATION_BUCKET")

# Google's clients are imported when they are used: a task without a table needs none.
logger = logging.getLogger("export")


class Command(CloudRunJobs):
    help = "Export the tables of a BigQuery dataset to Cloud Storage"
    schedule = "0 3 * * *"
    tasks = 10  # Any number: the tasks take tables as they become free.
    timeout = 3600
    max_retries = 2
    # The containers get the values of the deployment.
    env_vars = {name: os.environ[name] for name in VARIABLES if name in os.environ}

    @property
    def is_enabled(self) -> bool:
        return {"SOURCE_DATASET", "DESTINATION_BUCKET"} <= self.env_vars.keys()

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--dataset", metavar="D", help="default: the variable SOURCE_DATASET")
        parser.add_argument("--bucket", metavar="B", help="default: the variable DESTINATION_BUCKET")
        parser.add_argument("--project", metavar="P", help="default: PROJECT_ID, or that of the credentials")
        parser.add_argument("--prefix", metavar="X", default="", help="folder in the bucket")
        parser.add_argument("--format", choices=FORMATS, default="csv")
        parser.add_argument(
            "--include", metavar="GLOB", default="*", help="pattern of table names, such as 'sales_*'"
        )
        parser.add_argument("--dry-run", action="store_true", help="print the tables, export nothing")
        parser.add_argument(
            "--no-verify", dest="verify", action="store_false", help="do not count the rows in the files"
        )

    def run(
        self,
        *args: Any,
        dataset: str | None,
        bucket: str | None,
        project: str | None,
        prefix: str,
        format: str,  # noqa: A002  (the option's name)
        include: str,
        dry_run: bool,
        verify: bool,
        **options: Any,
    ) -> dict[str, Any]:
        try:
            export = Export(
                dataset=_given("--dataset", dataset, "SOURCE_DATASET"),
                bucket=_given("--bucket", bucket, "DESTINATION_BUCKET"),
                project=project or os.environ.get("PROJECT_ID", ""),
                prefix=prefix,
                format=format,
                verify=verify,
            )
        except InvalidExport as error:
            raise CommandError(str(error)) from error
        clients = Clients(export.project)
        location = cache(lambda: _location(clients, export))
        errors: dict[str, str] = {}
        for table in self.claim(self._tables(clients, export, include)):
            with self.item(table):
                if dry_run:
                    self.stdout.write(f"Would export {table} to gs://{export.bucket}/{export.folder(table)}")
                    continue
                try:
                    self._export(clients, export, table, location)
                except ExportFailed as error:
                    errors[table] = str(error)
                    raise
        # For reduce(), which may run in a process without the options.
        return {"run": self.run_id, "export": asdict(export), "include": include, "errors": errors}

    def _tables(self, clients: Clients, export: Export, include: str) -> Iterator[str]:
        """Yield the tables to export. Only the first task iterates over them."""
        from export.tables import NestedColumns, check_columns, list_tables

        listing = list_tables(clients, export, include)
        try:
            check_columns(clients, export, listing)
        except NestedColumns as error:
            raise CommandError(str(error)) from error
        for table, kind in listing.skipped:
            logger.warning("%s is skipped: it is a %s", table, kind, extra={"table": table})
        yield from listing.tables

    def _export(self, clients: Clients, export: Export, table: str, location: Callable[[], str]) -> None:
        from export.exporting import export_table

        try:
            manifest = export_table(clients, export, table, self.run_id, location())
        except ExportFailed as error:
            logger.error("%s", error, extra={"table": table})  # noqa: TRY400  (the message is enough)
            raise
        message = "%s is exported (rows: %d, bytes: %d, files: %d)"
        extra = {"table": table}
        logger.info(message, table, manifest.rows, manifest.size, len(manifest.files), extra=extra)

    def reduce(self, results: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Return the outcome of the run, from the manifests: a task that was killed returned nothing."""
        from export.manifests import summary
        from export.tables import list_tables

        results = [result for result in results if result]
        export = Export(**results[0]["export"])
        clients = Clients(export.project)
        exported = summary(clients, export, {result["run"] for result in results})
        errors = {table: error for result in results for table, error in result["errors"].items()}
        return {
            "exported": len(exported.tables),
            "skipped": [each._asdict() for each in list_tables(clients, export, results[0]["include"]).skipped],
            "rows": exported.rows,
            "bytes": exported.size,
            # Without tables that a retry exported, in any task.
            "errors": [
                {"table": table, "error": error}
                for table, error in sorted(errors.items())
                if table not in exported.tables
            ],
        }


def _given(option: str, value: str | None, variable: str) -> str:
    if given := value or os.environ.get(variable, ""):
        return given
    raise CommandError(f"Pass {option}, or set the variable {variable}.")


def _location(clients: Clients, export: Export) -> str:
    from export.tables import location

    return location(clients, export)
