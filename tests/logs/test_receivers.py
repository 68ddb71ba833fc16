"""Log lines: a message, an action, and no arguments."""

from __future__ import annotations

import json
import logging
import re
import sys
import threading
from types import SimpleNamespace

import pytest
from django.core.management import call_command

from cloudrun_jobs import signals
from cloudrun_jobs.logs import receivers, tracebacks
from cloudrun_jobs.models import JobRun
from cloudrun_jobs.terminal import is_unsafe
from tests.jobs.management.commands import echo
from tests.logs.reading import entries


def test_action_is_the_signals_name(caplog: pytest.LogCaptureFixture) -> None:
    """Each record has its action beside its message."""
    with caplog.at_level(logging.INFO, "cloudrun_jobs"):
        echo.Command().delay()

    actions = [record.__dict__["action"] for record in caplog.records]
    assert actions == ["job_started", "job_finished", "job_delayed"]
    assert caplog.records[0].getMessage() == "Job echo-test started"
    assert caplog.records[2].getMessage() == "Job echo-test ran in this process"


@pytest.mark.parametrize(
    ("ending", "level", "error"), [("error", "WARNING", "ZeroDivisionError"), ("exit", "ERROR", "SystemExit")]
)
def test_failure_is_logged(caplog: pytest.LogCaptureFixture, ending: str, level: str, error: str) -> None:
    """A job that failed is logged with the class of the exception, at ERROR if nothing else reports it."""
    with caplog.at_level(logging.INFO, "cloudrun_jobs"), pytest.raises((ZeroDivisionError, SystemExit)):
        call_command("outcome", ending)

    record = caplog.records[-1]
    assert (record.levelname, record.__dict__["action"]) == (level, "job_finished")
    assert record.__dict__["error"] == error
    assert re.search(rf"failed after \d+\.\ds with {error}", record.getMessage())


def test_attempt_is_named_in_a_container(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lines of tasks and retries are distinguishable."""
    monkeypatch.setenv("CLOUD_RUN_EXECUTION", "echo-production-x7k2p")
    monkeypatch.setenv("CLOUD_RUN_TASK_INDEX", "2")
    monkeypatch.setenv("CLOUD_RUN_TASK_COUNT", "3")
    with caplog.at_level(logging.INFO, "cloudrun_jobs"):
        echo.Command().delay()

    assert caplog.records[0].getMessage() == "Job echo-test started (task 2 of 3, attempt 0)"
    assert caplog.records[0].__dict__["execution"] == "echo-production-x7k2p"


def test_arguments_are_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    """Arguments may be personal data."""
    with caplog.at_level(logging.DEBUG):
        echo.Command().delay("hunter2", note="hunter2")

    assert "hunter2" not in caplog.text
    # This job returns its arguments, and results are logged.
    assert all("hunter2" not in str({**record.__dict__, "result": None}) for record in caplog.records)


def test_progress_is_a_json_line_in_a_container(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the project's logging drops INFO, a container writes a line that Cloud Logging reads."""
    monkeypatch.setenv("CLOUD_RUN_EXECUTION", "echo-production-x7k2p")
    caplog.set_level(logging.WARNING, "cloudrun_jobs")
    monkeypatch.setattr(echo.Command, "run", lambda self, **options: self.progress(1, 3, "Zürich\n"))
    call_command("echo")

    line = json.loads(capsys.readouterr().out)
    assert line["logging.googleapis.com/labels"]["run"] == line.pop("run_id")
    line = {name: value for name, value in line.items() if "/" not in name}
    assert line == {
        "severity": "INFO",
        "message": "Job echo-test is at 1 of 3: Zürich\\n (task 0 of 1, attempt 0)",
        "action": "job_progressed",
        "job": "echo-test",
        "execution": "echo-production-x7k2p",
        "task_index": 0,
        "task_attempt": 0,
        "done": 1,
        "total": 3,
        "text": "Zürich\n",
    }


FORGED = 'no\n{"severity": "ALERT", "message": "forged"}\x1b[2J\x9b\u202e\u2028\ud800'
ESCAPED = r'no\n{"severity": "ALERT", "message": "forged"}\x1b[2J\x9b\u202e\u2028\ud800'


def test_values_cannot_forge_an_entry(caplog: pytest.LogCaptureFixture) -> None:
    """A line break or a control character in a value is escaped in the message."""
    run = JobRun(command="echo", requested_by=FORGED, status=FORGED, reason=FORGED)
    with caplog.at_level(logging.INFO, "cloudrun_jobs"):
        signals.dispatch_failed.send(JobRun, run=run, error=RuntimeError(FORGED))
        signals.run_reconciled.send(JobRun, run=run)
        signals.lease_lost.send(object, lease=SimpleNamespace(name=FORGED, token=1), reason=FORGED)

    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == 3
    assert not any(is_unsafe(character) for character in "".join(messages))
    assert all(ESCAPED in message for message in messages)


@pytest.fixture
def _escaping(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "excepthook", sys.__excepthook__)
    tracebacks.escape_tracebacks()


@pytest.mark.usefixtures("_escaping")
def test_exceptions_text_is_one_line_of_a_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    """The text and the notes of an exception and of its causes begin no line."""
    cause = KeyError("harmless")
    cause.__context__ = RuntimeError(FORGED)
    error = ValueError(FORGED)
    error.__cause__ = cause
    error.add_note(FORGED)

    sys.excepthook(ValueError, error, None)

    lines = capsys.readouterr().err.splitlines()
    assert f"ValueError: {ESCAPED}" in lines
    assert f"RuntimeError: {ESCAPED}" in lines
    assert f"  {ESCAPED}" in lines
    assert not any(line.startswith("{") or any(map(is_unsafe, line)) for line in lines)


@pytest.mark.usefixtures("_escaping")
def test_text_of_line_breaks_leaves_the_traceback_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    """Only the exception's own text is escaped."""
    try:
        raise ValueError("\n")
    except ValueError as error:
        sys.excepthook(ValueError, error, error.__traceback__)

    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert lines[-1] == r"ValueError: \n"
    assert len(lines) >= 4


@pytest.mark.parametrize("name", [name for name, value in vars(signals).items() if type(value) is signals.Signal])
def test_every_signal_is_logged(name: str) -> None:
    """Each signal has a receiver named after it."""
    assert callable(getattr(receivers, f"log_{name}"))
    assert getattr(signals, name).has_listeners()


@pytest.fixture
def _unconfigured(monkeypatch: pytest.MonkeyPatch) -> None:
    """No handler is configured for the package's logger, in a container."""
    monkeypatch.setenv("CLOUD_RUN_EXECUTION", "echo-production-x7k2p")
    monkeypatch.setattr(receivers.logger.logger, "hasHandlers", lambda: False)


@pytest.mark.usefixtures("_unconfigured")
def test_own_records_are_entries_where_no_handler_is_configured(capfd: pytest.CaptureFixture[str]) -> None:
    """The package writes the start and the end of a job, with what it returned, and other modules' warnings."""
    call_command("outcome", "text")
    logging.getLogger("cloudrun_jobs").warning("from %s", "elsewhere\n", extra={"action": "a_warning"})

    found = {entry["action"]: entry for entry in entries(capfd.readouterr().out) if "action" in entry}
    assert list(found) == ["job_started", "job_finished", "a_warning"]
    assert (found["job_finished"]["severity"], found["job_finished"]["result"]) == ("INFO", "all done")
    assert (found["a_warning"]["severity"], found["a_warning"]["message"]) == ("WARNING", r"from elsewhere\n")


@pytest.mark.usefixtures("_unconfigured")
def test_level_of_the_logger_is_respected(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A project can silence the package's records by the level of the logger."""
    monkeypatch.setattr(receivers.logger.logger, "level", logging.ERROR)
    call_command("outcome", "text")

    assert [entry for entry in entries(capfd.readouterr().out) if "action" in entry] == []


def test_a_large_result_is_logged_in_part(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The numbers of a large result are logged, for metrics."""
    result = {"names": ["x" * 100] * 1000, **{f"partner {number}": ["x"] for number in range(100)}, "processed": 3}
    monkeypatch.setattr(echo.Command, "run", lambda self, **options: result)
    with caplog.at_level(logging.INFO, "cloudrun_jobs"):
        call_command("echo")

    found = caplog.records[-1].__dict__["result"]
    assert found["processed"] == 3
    assert len(found["names"]) == receivers.MAX_ITEM_LENGTH


@pytest.fixture
def _hooks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "excepthook", sys.__excepthook__)
    monkeypatch.setattr(threading, "excepthook", threading.__excepthook__)
    tracebacks.log_uncaught()


@pytest.mark.usefixtures("_hooks")
def test_uncaught_exception_of_a_thread_is_one_entry(capfd: pytest.CaptureFixture[str]) -> None:
    """The entry has the traceback, the source location and the thread's name."""
    thread = threading.Thread(target=lambda: 1 / 0, name="worker-7")
    thread.start()
    thread.join()

    [entry] = entries(capfd.readouterr().err)
    assert entry["message"] == "Uncaught ZeroDivisionError in thread worker-7: division by zero"
    assert entry["stack_trace"].startswith("Traceback (most recent call last):\n")
    assert entry["logging.googleapis.com/sourceLocation"]["file"] == __file__
