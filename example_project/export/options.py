"""The options of an export."""

from __future__ import annotations

import re
from dataclasses import dataclass

# BigQuery's names of the formats.
FORMATS = {"csv": "CSV", "json": "NEWLINE_DELIMITED_JSON", "parquet": "PARQUET", "avro": "AVRO"}

DATASET = re.compile(r"\w{1,1024}", re.ASCII)
PROJECT = re.compile(r"[a-z0-9.:-]+")
# BigQuery, Cloud Storage or their tools read these characters as patterns.
NOT_IN_PREFIX = re.compile(r"[*?\[\]{}\\#\x00-\x1f\x7f]|//|^gs:")


class InvalidExport(ValueError):
    """An option has a value that BigQuery or Cloud Storage rejects."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Export:
    """The options of an export."""

    dataset: str
    bucket: str
    project: str = ""  # Of the dataset and of the extract jobs; if empty, the project of the credentials.
    prefix: str = ""
    format: str = "csv"
    verify: bool = True

    def __post_init__(self) -> None:
        if not DATASET.fullmatch(self.dataset):
            hint = "Pass its project with --project." if "." in self.dataset else ""
            raise InvalidExport(f"--dataset: expected letters, digits and _, got {self.dataset!r}. {hint}".strip())
        if self.project and not PROJECT.fullmatch(self.project):
            raise InvalidExport(f"--project: expected the id of a project, got {self.project!r}.")
        if not self.bucket or "/" in self.bucket:
            raise InvalidExport(f"--bucket: expected the name of a bucket, without gs://, got {self.bucket!r}.")
        if found := NOT_IN_PREFIX.search(self.prefix):
            raise InvalidExport(f"--prefix: expected no {found[0]!r}, got {self.prefix!r}.")

    def folder(self, table: str) -> str:
        """Return the prefix of a table's objects, which ends with a slash."""
        prefix = self.prefix.strip("/")
        return f"{prefix}/{table}/" if prefix else f"{table}/"

    def generation(self, table: str, run: str) -> str:
        """Return the prefix of a table's files in one run, which ends with a slash."""
        return f"{self.folder(table)}{run}/"
