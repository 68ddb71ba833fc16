"""The log: a sentence for people, a verb for machines, and no arguments."""

from __future__ import annotations

import logging

import pytest

from tests.jobs.management.commands import echo, outcome


def test_a_run_is_logged_with_stable_verbs(caplog: pytest.LogCaptureFixture) -> None:
    """Each record has its action beside its sentence."""
    with caplog.at_level(logging.INFO, "cloudrun_jobs"):
        echo.Command().delay()

    actions = [record.__dict__["action"] for record in caplog.records]
    assert actions == ["job_started", "job_finished", "job_delayed"]
    assert caplog.records[0].getMessage() == "Job echo-test started"
    assert caplog.records[2].getMessage() == "Job echo-test ran in this process"


def test_a_failure_is_an_error(caplog: pytest.LogCaptureFixture) -> None:
    """A job that raised is logged at ERROR, with the class of what it raised."""
    with caplog.at_level(logging.INFO, "cloudrun_jobs"), pytest.raises(ZeroDivisionError):
        outcome.Command().delay("error")

    record = caplog.records[-1]
    assert (record.levelname, record.__dict__["action"]) == ("ERROR", "job_finished")
    assert "failed after 0.0s with ZeroDivisionError" in record.getMessage()


def test_the_attempt_is_named_in_a_container(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lines of several tasks and retries can be told apart."""
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
    assert all("hunter2" not in str(record.__dict__) for record in caplog.records)
