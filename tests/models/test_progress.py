"""How far a job is reaches its record, the signals, the log and a terminal, and breaks no job."""

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
def told() -> Iterator[list[dict[str, Any]]]:
    """What the signal told."""
    heard: list[dict[str, Any]] = []

    def hear(**values: Any) -> None:
        heard.append(values)

    job_progressed.connect(hear)
    yield heard
    job_progressed.disconnect(hear)


def test_the_record_has_the_last(database: str) -> None:
    """When the job has ended, its record has the progress told last, however quickly it came."""
    operation = walk.Command().delay(steps=500)

    assert JobRun.objects.get(pk=operation.run.pk).progress == Progress(500, 500, "step 500")


def test_the_record_is_written_while_the_job_runs(database: str, tmp_path: Path) -> None:
    """The progress told is in the record while the job goes on, though it tells no more."""
    with start(database, "walk", "3", f"--until={tmp_path / 'go on'}") as process:
        run = wait_for(JobRun.objects.first)
        progress = wait_for(lambda: run.progress, seconds=15)  # Sooner than the heartbeat comes anyway.
        status = JobRun.objects.get().status
        (tmp_path / "go on").touch()

        assert process.wait(60) == 0

    assert (progress, status) == (Progress(3, 3, "step 3"), Status.RUNNING)


def test_signal_at_first_and_at_last(database: str, told: list[dict[str, Any]]) -> None:
    """However often a job tells, the signal is sent once in a while, and for what was told last."""
    operation = walk.Command().delay(steps=2000)

    assert [values["done"] for values in told][:: len(told) - 1] == [1, 2000]
    assert len(told) <= 10
    assert told[-1]["run"] == operation.run
    assert (told[-1]["sender"], told[-1]["total"], told[-1]["text"]) == (walk.Command, 2000, "step 2000")


def test_signal_each_time_for_who_tells_seldom(
    database: str, told: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job that tells less often than the signal may be sent has each of them sent, and none twice."""
    monkeypatch.setattr(progress, "SIGNAL_INTERVAL", 0)

    walk.Command().delay(steps=4)

    assert [values["done"] for values in told] == [1, 2, 3, 4]


def test_log(database: str, caplog: pytest.LogCaptureFixture) -> None:
    """The log has a sentence, and what it says as data."""
    caplog.set_level(logging.INFO, "cloudrun_jobs")

    run = walk.Command().delay(steps=1).run

    (entry,) = [record for record in caplog.records if record.action == "job_progressed"]
    assert entry.getMessage() == "Job walk-test is at 1 of 1: step 1"
    assert (entry.done, entry.total, entry.text, entry.run_id) == (1, 1, "step 1", str(run.pk))


def test_line_of_json_in_a_container(database: str) -> None:
    """In a container whose logging takes no such record, a line of JSON tells it to Cloud Logging."""
    with start(database, "walk", "2", env=CONTAINER, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        output, errors = process.communicate(timeout=60)

    first, last = map(json.loads, output.splitlines())
    assert (first["done"], last["done"], last["total"]) == (1, 2, 2)
    assert last["message"] == "Job walk-test is at 2 of 2: step 2 (task 0 of 1, attempt 0)"
    assert (last["severity"], last["action"], last["execution"]) == ("INFO", "job_progressed", "walk-test-x7k2p")
    assert errors == ""


def seen_on_a_terminal(database: str, *argv: str) -> str:
    """Run a job with a terminal as its stderr; return what it wrote there."""
    mine, its = pty.openpty()
    with start(database, "walk", *argv, stderr=its) as process:
        os.close(its)
        written = b"".join(iter(lambda: read(mine), b""))
        process.wait(60)
    os.close(mine)
    return written.decode()


def read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 1000)
    except OSError:  # The last process that had it open has ended.
        return b""


def test_bar_on_a_terminal(database: str) -> None:
    """A terminal shows a bar, in one line that is erased at the end."""
    shown = seen_on_a_terminal(database, "4", "--seconds=0.11")

    drawn = shown.split("\r\x1b[2K")
    assert drawn[1] == "[######------------------]  25%  1 of 4: step 1"
    assert "[##################------]  75%  3 of 4: step 3" in drawn
    assert shown.endswith("\r\x1b[2K")
    assert "\n" not in shown


def test_no_bar_when_silent(database: str) -> None:
    """With --verbosity 0 there is no bar."""
    assert seen_on_a_terminal(database, "2", "--verbosity=0") == ""


def test_no_bar_in_a_file(database: str) -> None:
    """Where stderr is no terminal, nothing is drawn."""
    errors = io.StringIO()

    call_command("walk", "3", stderr=errors)

    assert errors.getvalue() == ""


@pytest.mark.parametrize(
    ("text", "columns", "expected"),
    [("step 1", 10, "step 1"), ("step 1", 4, "step"), ("請求書の送信", 7, "請求書"), ("a\nb\x1bc", 9, "a b c")],
)
def test_line_of_a_terminal(text: str, columns: int, expected: str) -> None:
    """What is drawn fits into one line, in which Japanese letters take two columns, and controls nothing."""
    assert fit(text, columns) == expected


@pytest.mark.parametrize("done", [-1, 0.5, "3", None, 2**63])
def test_what_is_no_count_is_refused(done: Any) -> None:
    """Fractions, negative numbers, text and what no column holds are refused with an error that says so."""
    with pytest.raises(InvalidProgress, match="expected done to be a whole number from 0 up, got"):
        walk.Command().progress(done)


def test_total_is_checked_too() -> None:
    """A total that is no count is refused."""
    with pytest.raises(ValueError, match="expected total to be"):
        walk.Command().progress(1, -5)


def test_a_total_that_is_too_small_grows(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """More done than there was to do breaks no job."""
    monkeypatch.setattr(walk.Command, "run", lambda self, **options: self.progress(7, 5))

    assert walk.Command().delay(steps=1).run.progress == Progress(7, 7)


def test_text_that_no_column_holds(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """NUL, half a surrogate and length in the text break no job."""
    text = "\0 \ud800 " + "x" * 300
    monkeypatch.setattr(walk.Command, "run", lambda self, **options: self.progress(1, text=text))

    kept = walk.Command().delay(steps=1).run.progress

    assert kept.text == "\\x00 \\ud800 " + "x" * 188


def test_outside_of_a_run_nobody_listens(told: list[dict[str, Any]], db: None) -> None:
    """`run()` can be called by itself, as tests do: what it tells goes nowhere."""
    walk.Command().run(steps=3, seconds=0, until=None)

    assert told == []


def test_after_a_run_outside_of_one(database: str, told: list[dict[str, Any]]) -> None:
    """The same object that told outside of a run tells inside of one, and the other way around."""
    command = walk.Command()
    command.progress(9)
    call_command(command, "2")
    command.progress(9)

    assert JobRun.objects.get().progress == Progress(2, 2, "step 2")
    assert [values["done"] for values in told] == [1, 2]
