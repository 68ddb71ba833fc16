"""Progress reaches the record, signal receivers, the log and a terminal, and never fails a job."""

from __future__ import annotations

import io
import json
import logging
import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command
from django.db import connections

from cloudrun_jobs.exceptions import InvalidProgress
from cloudrun_jobs.execution import progress
from cloudrun_jobs.models import JobRun, Progress, Status
from cloudrun_jobs.signals import job_progressed
from cloudrun_jobs.terminal import fit
from tests.jobs.management.commands import walk
from tests.logs.reading import entries
from tests.waiting import wait_for

MANAGE = Path(__file__).parent.parent / "manage.py"
CONTAINER = {"CLOUD_RUN_JOB": "walk-test", "CLOUD_RUN_EXECUTION": "walk-test-x7k2p"}


def start(database: str, *argv: str, **options: Any) -> subprocess.Popen[str]:
    """Start `manage.py` with its records in the database under test."""
    settings = {"RUNS_DATABASE": json.dumps(connections.settings[database], default=str)}
    settings |= {"DJANGO_SETTINGS_MODULE": "tests.models.settings", "TERM": "xterm", "COLUMNS": "60"}
    environment = {**os.environ, **settings, **options.pop("env", {})}
    return subprocess.Popen([sys.executable, str(MANAGE), *argv], env=environment, text=True, **options)


@pytest.fixture
def reports() -> Iterator[list[dict[str, Any]]]:
    """Record the values of the signal."""
    received: list[dict[str, Any]] = []

    def receiver(**values: Any) -> None:
        received.append(values)

    job_progressed.connect(receiver)
    yield received
    job_progressed.disconnect(receiver)


def test_the_record_has_the_last_report(database: str) -> None:
    """The record of a finished job has the last report, however quickly it followed others."""
    operation = walk.Command().delay(steps=500)

    assert JobRun.objects.get(pk=operation.run.pk).progress == Progress(500, 500, "step 500")


def test_the_record_is_written_while_the_job_runs(database: str, tmp_path: Path) -> None:
    """The record has the progress while the job is running."""
    with start(database, "walk", "3", f"--until={tmp_path / 'go on'}") as process:
        run = wait_for(JobRun.objects.first)
        progress = wait_for(lambda: run.progress, seconds=15)  # Sooner than the next regular heartbeat.
        status = JobRun.objects.get().status
        (tmp_path / "go on").touch()

        assert process.wait(60) == 0

    assert (progress, status) == (Progress(3, 3, "step 3"), Status.RUNNING)


def test_first_and_last_reports_are_signalled(database: str, reports: list[dict[str, Any]]) -> None:
    """The signal is sent at most once per interval, and for the last report."""
    operation = walk.Command().delay(steps=2000)

    assert [values["done"] for values in reports][:: len(reports) - 1] == [1, 2000]
    assert len(reports) <= 10
    assert reports[-1]["run"] == operation.run
    assert (reports[-1]["sender"], reports[-1]["total"], reports[-1]["text"]) == (walk.Command, 2000, "step 2000")


def test_rare_reports_are_all_signalled(
    database: str, reports: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reports that are further apart than the interval are each signalled once."""
    monkeypatch.setattr(progress, "SIGNAL_INTERVAL", 0)

    walk.Command().delay(steps=4)

    assert [values["done"] for values in reports] == [1, 2, 3, 4]


def test_progress_is_logged(database: str, caplog: pytest.LogCaptureFixture) -> None:
    """The log record has a message and the values as attributes."""
    caplog.set_level(logging.INFO, "cloudrun_jobs")

    run = walk.Command().delay(steps=1).run

    (entry,) = [record for record in caplog.records if record.action == "job_progressed"]
    assert entry.getMessage() == "Job walk-test is at 1 of 1: step 1"
    assert (entry.done, entry.total, entry.text, entry.run_id) == (1, 1, "step 1", str(run.pk))


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
def test_progress_is_printed_as_json_in_a_container(database: str) -> None:
    """A container whose logging drops the record prints a line of JSON for Cloud Logging."""
    with start(database, "walk", "2", env=CONTAINER, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        output, errors = process.communicate(timeout=60)

    first, last = [entry for entry in entries(output) if entry["action"] == "job_progressed"]
    assert (first["done"], last["done"], last["total"]) == (1, 2, 2)
    assert last["message"] == "Job walk-test is at 2 of 2: step 2 (task 0 of 1, attempt 0)"
    assert (last["severity"], last["action"], last["execution"]) == ("INFO", "job_progressed", "walk-test-x7k2p")
    assert errors == ""


def terminal_output(database: str, *argv: str) -> str:
    """Run a job with a terminal as stderr; return its output."""
    terminal, stderr = pty.openpty()
    with start(database, "walk", *argv, stderr=stderr) as process:
        os.close(stderr)
        written = b"".join(iter(lambda: read(terminal), b""))
        process.wait(60)
    os.close(terminal)
    return written.decode()


def read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 1000)
    except OSError:  # The last process that had it open has ended.
        return b""


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
def test_a_terminal_shows_a_bar(database: str) -> None:
    """The bar is drawn in one line, which is erased at the end."""
    shown = terminal_output(database, "4", "--seconds=0.11")

    drawn = shown.split("\r\x1b[2K")
    assert drawn[1] == "[######------------------]  25%  1 of 4: step 1"
    assert "[##################------]  75%  3 of 4: step 3" in drawn
    assert shown.endswith("\r\x1b[2K")
    assert "\n" not in shown


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
def test_verbosity_0_shows_no_bar(database: str) -> None:
    """--verbosity 0 disables the bar."""
    assert terminal_output(database, "2", "--verbosity=0") == ""


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
def test_a_file_gets_no_bar(database: str) -> None:
    """No bar is drawn if stderr is not a terminal."""
    errors = io.StringIO()

    call_command("walk", "3", stderr=errors)

    assert errors.getvalue() == ""


@pytest.mark.parametrize(
    ("text", "columns", "expected"),
    [("step 1", 10, "step 1"), ("step 1", 4, "step"), ("請求書の送信", 7, "請求書"), ("a\nb\x1bc", 9, "a b c")],
)
def test_text_fits_into_a_line(text: str, columns: int, expected: str) -> None:
    """Text is cut to the columns, of which wide letters take two, and has no control characters."""
    assert fit(text, columns) == expected


@pytest.mark.parametrize("done", [-1, 0.5, "3", None, 2**63])
def test_an_invalid_count_is_refused(done: Any) -> None:
    """Fractions, negative or too large numbers and text raise."""
    with pytest.raises(InvalidProgress, match="expected done to be a whole number from 0 up, got"):
        walk.Command().progress(done)


def test_an_invalid_total_is_refused() -> None:
    """An invalid total raises."""
    with pytest.raises(ValueError, match="expected total to be"):
        walk.Command().progress(1, -5)


def test_a_small_total_is_raised_to_done(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A total below the count is raised to it."""
    monkeypatch.setattr(walk.Command, "run", lambda self, **options: self.progress(7, 5))

    assert walk.Command().delay(steps=1).run.progress == Progress(7, 7)


def test_text_is_made_storable(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """NUL and surrogates in the text are escaped, and long text is cut."""
    text = "\0 \ud800 " + "x" * 300
    monkeypatch.setattr(walk.Command, "run", lambda self, **options: self.progress(1, text=text))

    stored = walk.Command().delay(steps=1).run.progress

    assert stored.text == "\\x00 \\ud800 " + "x" * 188


def test_reports_outside_a_run_are_ignored(reports: list[dict[str, Any]], db: None) -> None:
    """Progress is ignored when `run()` is called directly, as tests do."""
    walk.Command().run(steps=3, seconds=0, until=None)

    assert reports == []


def test_reports_before_and_after_a_run(database: str, reports: list[dict[str, Any]]) -> None:
    """One command object may report outside and inside a run."""
    command = walk.Command()
    command.progress(9)
    call_command(command, "2")
    command.progress(9)

    assert JobRun.objects.get().progress == Progress(2, 2, "step 2")
    assert [values["done"] for values in reports] == [1, 2]
