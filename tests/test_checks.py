"""System checks tell what is wrong before anything runs."""

from __future__ import annotations

from typing import Any

import pytest
from django.core import checks
from pytest_django import Settings

from cloudrun_jobs.checks import TAG
from tests.jobs.management.commands import echo, outcome


def run_checks(*, deploy: bool = False) -> dict[str | None, checks.CheckMessage]:
    messages = checks.run_checks(tags=[TAG], include_deployment_checks=deploy)
    return {message.id: message for message in messages}


def test_the_jobs_of_this_suite_are_in_order() -> None:
    """Sound declarations give no message."""
    assert run_checks() == {}


@pytest.mark.parametrize(
    ("attribute", "value", "code", "message"),
    [
        ("schedule", "@daily", "cloudrun_jobs.E004", "echo: schedule: expected None or a Cloud Scheduler"),
        ("time_zone", "Asia/Tokio", "cloudrun_jobs.E005", "echo: time_zone"),
        ("timeout", 0, "cloudrun_jobs.E006", "echo: timeout"),
        ("handle", lambda self: None, "cloudrun_jobs.E008", "echo: handle"),
        ("max_retrys", 3, "cloudrun_jobs.W005", "echo: 'max_retrys' declares nothing."),
    ],
)
def test_a_fault_of_a_job_is_told(
    monkeypatch: pytest.MonkeyPatch,
    attribute: str,
    value: Any,
    code: str,
    message: str,
) -> None:
    """Each fault has its id, the command's name and a hint where there is one."""
    monkeypatch.setattr(echo.Command, attribute, value, raising=False)

    found = run_checks()

    assert set(found) == {code}
    assert found[code].msg.startswith(message)


def test_the_schedules_hint_is_the_fix(monkeypatch: pytest.MonkeyPatch) -> None:
    """The message of a bad schedule says what to write."""
    monkeypatch.setattr(echo.Command, "schedule", "@daily", raising=False)

    assert "Write '0 0 * * *'." in str(run_checks()["cloudrun_jobs.E004"].hint)


def test_two_jobs_of_one_name_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands that differ only in what Cloud Run's names lose would be one job."""
    monkeypatch.setattr(outcome.Command, "command_name", "echo_")
    monkeypatch.setattr(echo.Command, "command_name", "echo-")

    assert "would both be the Cloud Run job 'echo--test'" in run_checks()["cloudrun_jobs.E007"].msg


def test_bad_settings_are_one_message(settings: Settings) -> None:
    """A fault of the settings is told once, not once for each job."""
    settings.CLOUDRUN_JOBS = {"ENVIROMENT": "x"}

    found = run_checks(deploy=True)

    assert set(found) == {"cloudrun_jobs.E001"}
    assert found["cloudrun_jobs.E001"].hint == "Did you mean 'ENVIRONMENT'?"


def test_a_command_that_cannot_be_imported_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether a broken module holds a job is not known; the others are checked all the same."""
    monkeypatch.setattr(echo.Command, "timeout", 0, raising=False)
    monkeypatch.setattr(
        "cloudrun_jobs.registry.get_commands",
        lambda: {"broken": "tests.jobs", "check": "django.core", "echo": "tests.jobs"},
    )

    found = run_checks()

    assert set(found) == {"cloudrun_jobs.W006", "cloudrun_jobs.E006"}
    assert "'broken' cannot be imported" in found["cloudrun_jobs.W006"].msg
    assert "tests.jobs.management.commands.broken" in str(found["cloudrun_jobs.W006"].hint)


def test_production_that_runs_inline_is_told(settings: Settings) -> None:
    """`check --deploy` warns where delay() would run jobs inside of requests."""
    assert set(run_checks(deploy=True)) == {"cloudrun_jobs.W004"}

    settings.CLOUDRUN_JOBS = {"ENVIRONMENT": "production", "PROJECT": "acme", "REGION": "asia-northeast1"}
    assert run_checks(deploy=True) == {}


def test_a_container_does_not_pay_for_the_checks_of_other_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where Cloud Run started the process, no other command is imported to be checked."""
    monkeypatch.setattr(echo.Command, "timeout", 0, raising=False)
    monkeypatch.setenv("CLOUD_RUN_EXECUTION", "echo-production-x7k2p")

    assert run_checks() == {}
