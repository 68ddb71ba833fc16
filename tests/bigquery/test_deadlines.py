"""The clients' retries and deadlines, against a server that answers with errors or not at all."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from export.clients import Clients, ExportFailed, Limits, failing_as
from export.exporting import Extraction, export_table
from export.manifests import Folder, Found, Manifest, summary
from export.options import Export
from export.tables import Listing, check_columns, list_tables, location
from tests.bigquery import unavailable
from tests.bigquery.servers import PROJECT
from tests.bigquery.test_exporting import RUN

LIMITS = Limits(request=0.3, retries=1.3, extract=1.3, poll=0.1)
# The last request may begin just before the limit of the retries; the rest allows for a loaded machine.
DEADLINE = LIMITS.retries + LIMITS.request + 3.0
EXPORT = Export(dataset="d", bucket="b")
MANIFEST = Manifest(
    project=PROJECT,
    dataset="d",
    table="sales",
    run=RUN,
    format="csv",
    exported_at="",
    rows=0,
    size=0,
    verified=True,
    files=[],
    replaces=[],
)


@pytest.fixture
def requests(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Make both services unavailable, and return the requests that they receive."""
    with unavailable.serving(request.param) as (url, received):
        monkeypatch.setenv("BIGQUERY_EMULATOR_HOST", url)
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", url)
        yield received


def folder(clients: Clients) -> Folder:
    return Folder(clients, EXPORT, "sales")


def extraction(clients: Clients) -> Extraction:
    return Extraction(clients, EXPORT, "sales", RUN, "US", folder(clients))


def started_job(clients: Clients) -> Any:
    """Return an extract job that is running when it is first read."""
    resource = {
        "jobReference": {"projectId": PROJECT, "jobId": "job", "location": "US"},
        "configuration": {"extract": {}},
        "status": {"state": "RUNNING"},
    }
    return clients.bigquery.job_from_resource(resource)


CALLS: dict[str, Callable[[Clients], object]] = {
    "list-tables": lambda clients: list_tables(clients, EXPORT),
    "location": lambda clients: location(clients, EXPORT),
    "columns": lambda clients: check_columns(clients, EXPORT, Listing(["sales"], [])),
    "whole-table": lambda clients: export_table(clients, EXPORT, "sales", RUN, "US"),
    "summary": lambda clients: summary(clients, EXPORT, {RUN}),
}
# `export_table()` adds the table to the errors of these calls.
PARTS: dict[str, Callable[[Clients], object]] = {
    "count-rows": lambda clients: extraction(clients).extract([]),
    "start-job": lambda clients: extraction(clients).start_or_join(1),
    "find-job": lambda clients: extraction(clients).start_or_join(2),
    "wait-for-job": lambda clients: extraction(clients).wait(started_job(clients)),
    "list-files": lambda clients: folder(clients).files(RUN),
    "write-manifest": lambda clients: folder(clients).write_manifest(MANIFEST, Found(None, 0)),
}
SUBJECTS = r"^(sales|The (tables|columns) of d cannot be listed|The dataset d is|The manifests cannot be listed)"


def call_with_name(name: str, clients: Clients) -> None:
    if name in CALLS:
        CALLS[name](clients)
    else:
        with failing_as("sales"):
            PARTS[name](clients)


@pytest.mark.parametrize("name", [*CALLS, *PARTS])
@pytest.mark.parametrize("requests", [503, None], ids=["503", "no-answer"], indirect=True)
def test_call_is_retried_and_ends_within_its_deadline(requests: list[str], name: str) -> None:
    """Each call is repeated, gives up at its deadline, and names its subject."""
    clients = Clients(PROJECT, LIMITS)
    began = time.monotonic()
    with pytest.raises(ExportFailed, match=SUBJECTS):
        call_with_name(name, clients)

    assert time.monotonic() - began < DEADLINE
    assert len(requests) > 1


@pytest.mark.parametrize("name", ["list-tables", "whole-table", "write-manifest"])
@pytest.mark.parametrize("requests", [500, 429], indirect=True)
def test_other_errors_are_retried_too(requests: list[str], name: str) -> None:
    """An internal error and too many requests are retried, too."""
    test_call_is_retried_and_ends_within_its_deadline(requests, name)


@pytest.mark.parametrize("requests", [403], indirect=True)
def test_permanent_error_is_not_retried(requests: list[str]) -> None:
    """A permanent error fails the table at once."""
    with pytest.raises(ExportFailed, match=r"^sales: 403 "):
        export_table(Clients(PROJECT), EXPORT, "sales", RUN, "US")

    assert len(requests) == 1
