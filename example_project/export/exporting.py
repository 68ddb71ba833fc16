"""Export one table: extract it, check the files, write the manifest, delete the previous generation."""

from __future__ import annotations

import hashlib
import re
import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from google.api_core.exceptions import Conflict, NotFound

from export import rows
from export.clients import Clients, ExportFailed, failing_as
from export.manifests import File, Folder, Manifest
from export.options import FORMATS, Export

MAX_ATTEMPTS = 10
FIRST_POLL_SECONDS = 0.1
NOT_IN_JOB_ID = re.compile(r"[^\w-]", re.ASCII)


def export_table(clients: Clients, export: Export, table: str, run: str, location: str) -> Manifest:
    """Export a table and return its manifest. Raises `ExportFailed`.

    It is idempotent: a repetition in the same run skips the steps that are done.
    """
    with failing_as(table):
        folder = Folder(clients, export, table)
        found = folder.read_manifest()
        if found.manifest is not None and found.manifest.run == run:
            manifest = found.manifest
        else:
            # The runs of these generations have read this manifest or an older one: once this run has written its
            # own, their writes fail.
            replaces = [generation for generation in folder.generations() if generation != run]
            extraction = Extraction(clients, export, table, run, location, folder)
            manifest = folder.write_manifest(extraction.extract(replaces), found)
        folder.delete(*manifest.replaces)
        return manifest


def job_id(export: Export, project: str, table: str, run: str, attempt: int) -> str:
    """Return the id of an extract job, which run, table and attempt determine."""
    name = f"{project}.{export.dataset}.{table}"
    digest = hashlib.sha256(name.encode()).hexdigest()[:12]
    return f"export-{run}-{NOT_IN_JOB_ID.sub('_', table)[:200]}-{digest}-{attempt}"


class WrongFiles(Exception):
    """The files do not contain the whole table."""


@dataclass(frozen=True, slots=True)
class Extraction:
    """The extract jobs of one table in one run."""

    clients: Clients
    export: Export
    table: str
    run: str
    location: str
    folder: Folder

    def extract(self, replaces: list[str]) -> Manifest:
        """Write the files, and return the manifest that describes them. Raises `ExportFailed`.

        A job that another process started is joined. If that job fails, or its files are wrong, the next attempt
        follows. If a job that this process started fails, the table fails.
        """
        rows_before = self._rows_of_table()
        for attempt in range(1, MAX_ATTEMPTS + 1):
            job, is_joined = self.start_or_join(attempt)
            self.wait(job)
            if job.error_result:
                problem = str(job.error_result.get("message") or job.error_result)
            else:
                try:
                    return self._manifest(job, rows_before, replaces)
                except WrongFiles as error:
                    problem = str(error)
            if not is_joined:
                raise ExportFailed(f"{self.table}: {problem}")
        raise ExportFailed(
            f"{self.table}: {MAX_ATTEMPTS} extract jobs of this run failed, the last one: {problem}"
        )

    def start_or_join(self, attempt: int) -> tuple[Any, bool]:
        """Return the extract job of an attempt, and True if it existed."""
        name = job_id(self.export, self.clients.project, self.table, self.run, attempt)
        if attempt > 1:
            try:
                return self._get(name), True
            except NotFound:
                self.folder.delete(self.run)  # The files of the previous attempt.
        try:
            return self._start(name), False
        except Conflict:
            # The id is in use, but BigQuery may need a moment to find the job.
            return self.clients.until_found(lambda: self._get(name)), True

    def _start(self, name: str) -> Any:
        import google.cloud.bigquery as bigquery

        config = bigquery.ExtractJobConfig(destination_format=FORMATS[self.export.format])
        if self.export.format == "avro":
            config.use_avro_logical_types = True
        files = f"{self.export.generation(self.table, self.run)}part-*.{self.export.format}"
        return self.clients.bigquery.extract_table(
            self._source,
            f"gs://{self.export.bucket}/{files}",
            job_id=name,
            location=self.location,
            job_config=config,
            **self.clients.bigquery_options,
        )

    def _get(self, name: str) -> Any:
        return self.clients.bigquery.get_job(name, location=self.location, **self.clients.bigquery_options)

    @property
    def _source(self) -> str:
        return f"{self.clients.project}.{self.export.dataset}.{self.table}"

    def wait(self, job: Any) -> None:
        """Wait until the job ends. Cancel it and raise `ExportFailed` if it takes too long."""
        limits = self.clients.limits
        deadline, pause = time.monotonic() + limits.extract, FIRST_POLL_SECONDS
        while not job.done(**self.clients.bigquery_options):
            if time.monotonic() > deadline:
                job.cancel(**self.clients.bigquery_options)
                raise ExportFailed(f"{self.table}: the extract job took more than {limits.extract:g} s.")
            time.sleep(pause)
            pause = min(pause * 1.5, limits.poll)

    def _manifest(self, job: Any, rows_before: int, replaces: list[str]) -> Manifest:
        """Describe the files of a job that has succeeded. Raises `WrongFiles`."""
        blobs = self.folder.files(self.run)
        counts = job.destination_uri_file_counts
        if counts is not None and sum(counts) != len(blobs):
            raise WrongFiles(f"BigQuery wrote {sum(counts)} files, but {len(blobs)} were found.")
        files = [self._file(blob) for blob in blobs]
        found = rows_before
        if self.export.verify:
            found = sum(file.rows or 0 for file in files)
            # The table may have changed between the count and the job.
            if found != rows_before and found != (rows_after := self._rows_of_table()):
                raise WrongFiles(f"its files have {found} rows, but the table has {rows_after}.")
        return Manifest(
            project=self.clients.project,
            dataset=self.export.dataset,
            table=self.table,
            run=self.run,
            format=self.export.format,
            exported_at=(job.ended or datetime.now(UTC)).isoformat(),
            rows=found,
            size=sum(file.size for file in files),
            verified=self.export.verify,
            files=files,
            replaces=replaces,
        )

    def _file(self, blob: Any) -> File:
        file = File(name=blob.name, size=int(blob.size), crc32c=str(blob.crc32c), rows=None)
        if not self.export.verify:
            return file
        # Read exactly this generation: it is an error if another one replaces it.
        options = {**self.clients.storage_options, "if_generation_match": int(blob.generation)}
        with blob.open("rb", chunk_size=rows.READ_BYTES, **options) as content:
            try:
                return replace(file, rows=rows.count(content, self.export.format))
            except rows.UnreadableFile as error:
                raise WrongFiles(f"{blob.name} is not a whole file: {error}.") from error

    def _rows_of_table(self) -> int:
        return int(self.clients.bigquery.get_table(self._source, **self.clients.bigquery_options).num_rows)
