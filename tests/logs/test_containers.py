"""Google's client reads from the emulator what a container writes, in each way to write it."""

from __future__ import annotations

import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from google.auth.credentials import AnonymousCredentials
from google.cloud import logging as cloud_logging
from google.cloud.logging_v2 import _gapic

from cloudrun_jobs.emulator import Emulator
from tests.emulator.cloud import Cloud, eventually, job
from tests.emulator.fixtures import cloudrun_emulator, cloudrun_emulator_options

__all__ = ["cloudrun_emulator", "cloudrun_emulator_options"]

ROOT = Path(__file__).resolve().parents[2]
TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
VARIABLES = {
    "PYTHONPATH": str(ROOT),
    "CLOUDRUN_JOBS_ENVIRONMENT": "production",
    "CLOUDRUN_JOBS_PROJECT": "acme",
    "CLOUDRUN_JOBS_REGION": "europe-west4",
    "TRACEPARENT": f"00-{TRACE}-{SPAN}-01",
}
OWN = {
    "an info": "INFO",
    "an error": "ERROR",
    "a success": "NOTICE",
    "a warning in a text": "WARNING",
    "a notice": "NOTICE",
    "joined parts": "INFO",
    "bytes Z\ufffd\ufffd": "INFO",
    "from a thread": "INFO",
    "from a child by fork": "INFO",
    "from a child by spawn": "INFO",
    "from a handler": "INFO",
    "unfinished": "INFO",
    "Job speak-production started (task 0 of 1, attempt 0)": "INFO",
}
LOGGED = {
    "logged あ": "INFO",
    "logged error": "ERROR",
    "no %d fit 'good'": "INFO",
    "logged exception": "ERROR",
}


class Container:
    """Runs the job `speak` on an emulator, and reads its entries with Google's client."""

    def __init__(self, emulator: Emulator, database: Path) -> None:
        self.cloud = Cloud(emulator)
        self._variables = {**VARIABLES, "TESTS_DATABASE": str(database)}

    def declare(self, settings: str, *arguments: str, **variables: str) -> Any:
        variables = {**self._variables, "DJANGO_SETTINGS_MODULE": settings, **variables}
        return job(sys.executable, "-m", "django", "speak", *arguments, env=variables)

    def entries(self, *, over_grpc: bool = False) -> dict[str, Any]:
        """Return the entries by message, as Google's client reads them."""
        emulator = self.cloud.emulator
        client = cloud_logging.Client(
            project="acme",
            credentials=AnonymousCredentials(),
            _use_grpc=over_grpc,
            client_options={"api_endpoint": emulator.http},
        )
        if over_grpc:  # The client would connect with TLS.
            client._logging_api = _gapic._LoggingAPI(emulator.clients.logging, client)
        return {_message(entry): entry for entry in client.list_entries()}


def _message(entry: Any) -> str:
    payload = entry.payload
    return str(payload.get("message", "") if isinstance(payload, dict) else payload)


@pytest.fixture
def container(cloudrun_emulator: Emulator, process_database: Path) -> Iterator[Container]:
    return Container(cloudrun_emulator, process_database)


def severities(entries: dict[str, Any], messages: dict[str, str]) -> dict[str, str]:
    return {message: entries[message].severity for message in messages if message in entries}


@pytest.mark.parametrize("over_grpc", [False, True], ids=["REST", "gRPC"])
def test_every_way_is_an_entry(container: Container, over_grpc: bool) -> None:
    """Without any LOGGING, what a job writes has its severity, its run and its trace, in each way to write it."""
    container.cloud.finish(container.declare("tests.settings"), "speak-production")

    entries = container.entries(over_grpc=over_grpc)
    assert severities(entries, OWN) == OWN
    labels = entries["an info"].labels
    run = {name: labels[name] for name in ("job", "run", "execution", "task", "attempt")}
    known = {"job": "speak-production", "task": "0", "attempt": "0"}
    assert run == {**known, "run": run["run"], "execution": labels["run.googleapis.com/execution_name"]}
    assert len(run["run"]) == 36
    assert all(run.items() <= entries[message].labels.items() for message in OWN)
    assert {entries[message].trace for message in OWN} == {f"projects/acme/traces/{TRACE}"}
    assert {entries[message].span_id for message in OWN} == {SPAN}
    assert entries["an info"].source_location["file"].endswith("speak.py")
    assert entries["a print"].severity in {None, "DEFAULT"}
    assert entries["an error"].payload["serviceContext"] == {"service": "speak-production"}
    [long] = [message for message in entries if message.startswith("long ")]
    assert "characters are cut" in long
    finished = next(entry for message, entry in entries.items() if "finished in" in message)
    assert finished.payload["result"] == {"processed": 3, "errors": 1}


@pytest.mark.parametrize("recipe", ["json", "google"])
def test_recipes_of_logging_are_entries(container: Container, recipe: str) -> None:
    """With a recipe of docs/logging.md, the records of a job and of the package are such entries too."""
    container.cloud.finish(container.declare("tests.logs.recipe_settings", RECIPE=recipe), "speak-production")

    entries = container.entries()
    expected = {**OWN, **LOGGED}
    assert severities(entries, expected) == expected
    run = entries["an info"].labels["run"]
    assert {entries[message].labels["run"] for message in expected} == {run}
    assert {entries[message].trace for message in expected} == {f"projects/acme/traces/{TRACE}"}
    assert {entries[message].span_id for message in expected} == {SPAN}
    logged = entries["logged あ"]
    data = {"rows": 3.0, "ratio": "NaN", "extra_severity": "ALERT", "who": "<unreadable Broken>"}
    assert data.items() <= logged.payload.items()
    assert logged.source_location["function"] == "_log"
    assert entries["logged error"].payload["@type"].endswith("ReportedErrorEvent")
    trace = entries["logged exception"].payload["stack_trace"]
    assert trace.startswith("  + Exception Group Traceback (most recent call last):")
    assert "ValueError: x\n    | y\n" in trace
    finished = next(entry for message, entry in entries.items() if "finished in" in message)
    assert finished.payload["result"] == {"processed": 3, "errors": 1}


def test_uncaught_exception_is_one_entry(container: Container) -> None:
    """Error Reporting gets the traceback of an exception group in Python's own form."""
    container.cloud.finish(container.declare("tests.settings", "--fail"), "speak-production")

    entry = container.entries()["Uncaught ExceptionGroup: all failed (2 sub-exceptions)"]
    assert entry.severity == "ERROR"
    assert entry.payload["stack_trace"].startswith("  + Exception Group Traceback (most recent call last):")
    assert entry.labels["job"] == "speak-production"


def test_output_is_on_the_page_at_once_and_survives_sigkill(container: Container) -> None:
    """A line that a job has written is shown while the job runs, and remains when the job is killed."""
    code = (
        "import django, signal, time; django.setup(); signal.signal(signal.SIGTERM, signal.SIG_IGN); "
        "from tests.jobs.management.commands.speak import Command; "
        "command = Command(); command.stdout.write(command.style.WARNING('just <now>')); time.sleep(60)"
    )
    declared = container.declare("tests.settings")
    declared.template.template.containers[0].command = [sys.executable, "-c", code]
    operation = container.cloud.start(declared)
    name = operation.metadata.name
    url = f"{container.cloud.emulator.http}/executions/{name}"

    eventually(lambda: "WARNING  just &lt;now&gt;" in _page(url))
    container.cloud.emulator.clients.executions.cancel_execution(name=name)
    container.cloud.outcome(name)
    assert 'class="warning"' in _page(url)


def _page(url: str) -> str:
    with urllib.request.urlopen(url) as response:
        return str(response.read().decode())
