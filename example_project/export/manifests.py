"""The manifest of an exported table: it is written last, and names the files to read.

Each run writes its files under its own id, a generation. The manifest is replaced only if it has not changed since
the run read it: if two runs export the same table at once, the second one fails.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple, Self

from google.api_core.exceptions import NotFound, PreconditionFailed

from export.clients import Clients, ExportFailed, failing_as
from export.options import Export

NAME = "manifest.json"
GENERATION = re.compile(r"([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})/part-\d+\.\w+")


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    name: str  # Of the object.
    size: int  # In bytes.
    crc32c: str
    rows: int | None  # None if the export was not verified.


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """A complete export of a table."""

    project: str
    dataset: str
    table: str
    run: str
    format: str
    exported_at: str  # When the extract job ended.
    rows: int
    size: int  # In bytes.
    verified: bool
    files: list[File]
    replaces: list[str]  # Generations to delete.

    def encode(self) -> str:
        return json.dumps(asdict(self), indent=2)

    @classmethod
    def decode(cls, text: str | bytes) -> Self:
        values = json.loads(text)
        return cls(**{**values, "files": [File(**file) for file in values["files"]]})


class Found(NamedTuple):
    """A manifest and its generation number in Cloud Storage, which is 0 if there is none."""

    manifest: Manifest | None
    number: int


class Folder:
    """The objects of one table."""

    def __init__(self, clients: Clients, export: Export, table: str) -> None:
        self._options = clients.storage_options
        self._bucket = clients.storage.bucket(export.bucket)
        self._export, self._table = export, table
        self._path = export.folder(table)

    def read_manifest(self) -> Found:
        blob = self._bucket.get_blob(self._path + NAME, **self._options)
        if blob is None:
            return Found(None, 0)
        number = int(blob.generation)  # A download overwrites it.
        try:
            text = blob.download_as_bytes(if_generation_match=number, **self._options)
        except (NotFound, PreconditionFailed):
            raise ExportFailed(f"{self._table}: another run has just replaced its manifest.") from None
        try:
            return Found(Manifest.decode(text), number)
        except (ValueError, TypeError, KeyError) as error:
            name = f"gs://{self._export.bucket}/{self._path}{NAME}"
            raise ExportFailed(
                f"{self._table}: {name} is not a manifest of this job ({error}). Move it, or export with another "
                "--prefix."
            ) from error

    def write_manifest(self, manifest: Manifest, found: Found) -> Manifest:
        """Replace the manifest that was found. Raises `ExportFailed` if it has changed since."""
        blob = self._bucket.blob(self._path + NAME)
        # For `summary()`: listing the objects returns the metadata.
        blob.metadata = {"run": manifest.run, "rows": str(manifest.rows), "size": str(manifest.size)}
        blob.cache_control = "no-cache"
        try:
            blob.upload_from_string(
                manifest.encode(),
                content_type="application/json",
                if_generation_match=found.number,
                **self._options,
            )
        except PreconditionFailed:
            # The response to this write was lost and it was retried, or another process has written the table.
            now = self.read_manifest().manifest
            if now is not None and now.run == manifest.run:
                return now
            raise ExportFailed(
                f"{self._table}: another run has replaced its manifest since this one began."
            ) from None
        return manifest

    def files(self, run: str) -> list[Any]:
        """Return the objects of a generation."""
        return self._generations().get(run, [])

    def generations(self) -> list[str]:
        """Return the runs that have written files."""
        return sorted(self._generations())

    def delete(self, *runs: str) -> None:
        """Delete generations."""
        if runs:
            found = self._generations()
            files = [file for run in runs for file in found.get(run, [])]
            self._bucket.delete_blobs(files, on_error=lambda file: None, **self._options)

    def _generations(self) -> dict[str, list[Any]]:
        """Return the objects of each generation. Other objects in the folder do not belong to this job."""
        found: dict[str, list[Any]] = {}
        for blob in self._bucket.list_blobs(prefix=self._path, **self._options):
            if match := GENERATION.fullmatch(blob.name.removeprefix(self._path)):
                found.setdefault(match[1], []).append(blob)
        return found


class Summary(NamedTuple):
    """The totals of some runs."""

    tables: set[str]
    rows: int
    size: int  # In bytes.


def summary(clients: Clients, export: Export, runs: set[str]) -> Summary:
    """Add up the manifests that these runs wrote, with one request per thousand tables."""
    pattern = export.folder("*") + NAME
    bucket = clients.storage.bucket(export.bucket)
    found = {}
    with failing_as("The manifests cannot be listed"):
        for blob in bucket.list_blobs(match_glob=pattern, **clients.storage_options):
            if blob.metadata and blob.metadata.get("run") in runs:
                found[blob.name.removesuffix(f"/{NAME}").rpartition("/")[2]] = blob.metadata
    return Summary(
        set(found),
        rows=sum(int(metadata["rows"]) for metadata in found.values()),
        size=sum(int(metadata["size"]) for metadata in found.values()),
    )
