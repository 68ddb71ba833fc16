"""`cloudrun_jobs run`, `cancel`, `rerun`, `pause` and `resume`."""

from __future__ import annotations

from typing import Any
from unittest import mock

import pytest
from django.core.management import call_command
from django.db import IntegrityError

from cloudrun_jobs.emulator import Emulator
from cloudrun_jobs.exceptions import InvalidArguments, QuotaExhausted
from cloudrun_jobs.management import following
from cloudrun_jobs.models import JobRun, Status
from cloudrun_jobs.runs import local_output
from tests.deploy.commands import Terminal, sync
from tests.emulator.cloud import Cloud, eventually, script
from tests.jobs.management.commands import outcome
from tests.management.cli import Cli

pytestmark = pytest.mark.django_db(transaction=True)
SECRET = "swordfish"


@pytest.fixture
def cloud(options: dict[str, Any], emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> Cloud:
    """The job `echo` is deployed as a shell script; its end is seen soon."""
    monkeypatch.setattr(following, "REFRESH_INTERVALS", (0.1, 0.1))
    monkeypatch.setattr(following, "POLL_INTERVAL", 0.05)
    monkeypatch.setattr("cloudrun_jobs.management.log_sources.BackendSource.delay", 0.1)
    return Cloud(emulator)


def deploy(cloud: Cloud, text: str) -> None:
    cloud.create(script(text), "echo-production")


@pytest.mark.parametrize(
    ("ending", "status", "message"),
    [("exit 0", 0, "The run has succeeded"), ("exit 3", 1, "The run has failed")],
)
def test_wait_exits_with_the_outcome(cli: Cli, cloud: Cloud, ending: str, status: int, message: str) -> None:
    """stdout has the id of the run alone; without a terminal there is no bar."""
    deploy(cloud, ending)
    typed = cli("run", "echo", "--wait")

    assert (typed.status, typed.out) == (status, f"{JobRun.objects.get().pk}\n")
    assert message in typed.err
    assert "\r" not in typed.err
    assert "cloudrun_jobs show" in typed.err.splitlines()[-1]


def test_follow_prints_the_log(cli: Cli, cloud: Cloud) -> None:
    deploy(cloud, 'echo "SHOP is $SHOP"')
    typed = cli("run", "echo", "--follow", "--env", "SHOP=7", "--tasks=2")

    assert typed.status == 0
    assert "[task 1] SHOP is 7" in typed.out
    assert JobRun.objects.get().overrides == {"tasks": 2, "env": {"SHOP": "7"}}


def test_bar_is_drawn_on_a_terminal(cloud: Cloud) -> None:
    deploy(cloud, "sleep 0.5")
    terminal = Terminal()
    call_command("cloudrun_jobs", "run", "echo", "--wait", stderr=terminal, stdout=Terminal())

    assert "echo: sent, 0 s" in terminal.getvalue()


def test_ctrl_c_leaves_the_run_alone(cli: Cli, cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    """And prints the command that cancels it; typed, it does."""
    deploy(cloud, "sleep 60")

    def interrupt(seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(following, "sleep", interrupt)
    typed = cli("run", "echo", "--wait")
    run = JobRun.objects.get()
    command = f"cloudrun_jobs cancel {str(run.pk)[:8]}"

    assert (typed.status, run.status) == (130, Status.SENT)
    assert f"`manage.py {command}` cancels it." in typed.err
    cancelled = cli(*command.split()[1:])
    assert (cancelled.status, cancelled.err.count("\n")) == (0, 1)
    assert eventually(lambda: cloud.execution(run.execution_name).cancelled_count) == 1


def test_cancel_is_idempotent_and_knows_ends(cli: Cli) -> None:
    cancelled, ended = (
        JobRun.objects.create(command="echo", environment="test", trigger="delay", status=status)
        for status in (Status.PENDING, Status.SUCCEEDED)
    )

    assert cli("cancel", str(cancelled.pk)).err.startswith(f"Run {str(cancelled.pk)[:8]} was cancelled.")
    assert cli("cancel", str(cancelled.pk)).status == 0
    typed = cli("cancel", str(ended.pk))
    assert (typed.status, "it has succeeded" in typed.err) == (1, True)


def test_cancel_of_a_local_run_calls_no_api(cli: Cli, cloud: Cloud, emulator: Emulator) -> None:
    """The process of `run --local` reads the request from the record."""
    local_output.Recorder("echo-production-abcdef").close()
    run = JobRun.objects.create(
        command="echo",
        environment="production",
        trigger="manual",
        status=Status.RUNNING,
        execution="echo-production-abcdef",
    )
    emulator.calls.clear()

    assert cli("cancel", str(run.pk)).status == 0
    run.refresh_from_db()
    assert (run.cancel_requested_at is not None, emulator.calls) == (True, {})


@pytest.mark.parametrize(
    "arguments", [["--env", SECRET], ["--env", f"={SECRET}"], ["--env", f"CLOUDRUN_JOBS_X={SECRET}"]]
)
def test_invalid_variables_exit_2(cli: Cli, arguments: list[str]) -> None:
    """Without their values."""
    typed = cli("run", "echo", *arguments)

    assert (typed.status, typed.err.count("\n"), SECRET in typed.err) == (2, 1, False)


def test_failure_in_this_process_exits_1(cli: Cli) -> None:
    """In the environment "test" the job runs here; its error is one line, without a traceback."""
    typed = cli("run", "outcome", "--", "error")

    assert typed.status == 1
    last = typed.err.splitlines()[-1]
    assert last.startswith(
        "CommandError: The run failed. ZeroDivisionError: division by zero. `manage.py cloudrun_jobs"
    )
    assert cli("rerun", str(JobRun.objects.get().pk)).status == 1


def test_rerun_of_what_has_not_failed(cli: Cli) -> None:
    """The hint is a command, not a call of Python."""
    name = cli("run", "echo").out[:8]
    typed = cli("rerun", name, "--failed")

    assert typed.status == 1
    assert typed.err.endswith(f"`manage.py cloudrun_jobs rerun {name}` repeats the whole run.\n")


def test_rerun_names_the_next_command(cli: Cli) -> None:
    first = cli("run", "echo", "--", "--partner=7").out.strip()
    typed = cli("rerun", first[:8])

    assert typed.status == 0
    assert typed.err == f"`manage.py cloudrun_jobs show {typed.out[:8]}` shows the new run.\n"


def test_pause_and_resume_are_idempotent(cli: Cli, options: dict[str, Any], emulator: Emulator) -> None:
    """Each says what it did."""
    sync("sync_cloudrun_schedules", emulator, "--command", "nightly")
    said = [cli(verb, "nightly").out for verb in ("pause", "pause", "resume", "resume")]

    assert [line.strip() for line in said] == [
        "nightly-production: paused",
        "nightly-production: already paused",
        "nightly-production: enabled",
        "nightly-production: already enabled",
    ]
    assert (emulator.calls["CloudScheduler.PauseJob"], emulator.calls["CloudScheduler.ResumeJob"]) == (1, 1)


REFUSED = {
    "no schedule": ("echo", 1, "echo: the job has no schedule."),
    "unknown": ("nigthly", 1, "Did you mean 'nightly'?"),
    "not deployed": ("nightly", 2, "Create it with `manage.py sync_cloudrun_schedules`."),
}


@pytest.mark.parametrize(("job", "status", "message"), REFUSED.values(), ids=REFUSED)
@pytest.mark.parametrize("verb", ["pause", "resume"])
def test_jobs_that_cannot_be_paused(
    cli: Cli, options: dict[str, Any], verb: str, job: str, status: int, message: str
) -> None:
    typed = cli(verb, job)

    assert (typed.status, typed.err.count("\n")) == (status, 1)
    assert message in typed.err


def test_error_of_another_run_is_not_reported(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error before the run starts is this one, not that of an earlier run of the job."""
    cli("run", "outcome", "--", "error")
    monkeypatch.setattr(outcome.Command, "get_lock_key", mock.Mock(side_effect=RuntimeError("no key")))
    typed = cli("run", "outcome", "--", "error")

    assert (typed.status, "RuntimeError: no key." in typed.err, "ZeroDivision" in typed.err) == (1, True, False)


@pytest.mark.parametrize(
    "error", [IntegrityError("not unique"), QuotaExhausted("of another job"), InvalidArguments("x"), SystemExit(3)]
)
def test_exception_of_the_job_is_the_outcome_of_its_run(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    """Whatever its type: one line with the run, and exit status 1."""
    monkeypatch.setitem(outcome.ENDINGS, "error", mock.Mock(side_effect=error))
    typed = cli("run", "outcome", "--", "error")

    last = typed.err.splitlines()[-1]
    assert (typed.status, last.startswith("CommandError: The run failed. ")) == (1, True)
    assert last.endswith(f"show {str(JobRun.objects.get().pk)[:8]} --traceback` shows where.")


def test_ctrl_c_while_the_request_is_sent_names_the_run(
    cli: Cli, cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error names the recorded run, which `reconcile` would dispatch later."""
    monkeypatch.setattr("cloudrun_jobs.runs.dispatch.submit", mock.Mock(side_effect=KeyboardInterrupt))
    monkeypatch.setattr("cloudrun_jobs.runs.dispatch.start_execution", mock.Mock(side_effect=KeyboardInterrupt))
    typed = cli("run", "echo")
    name = str(JobRun.objects.get().pk)[:8]

    assert typed.status == 130
    assert typed.err.endswith(f"run {name} continues. `manage.py cloudrun_jobs cancel {name}` cancels it.\n")


def test_error_of_the_api_names_the_run(cli: Cli, cloud: Cloud) -> None:
    """The job is not deployed, and the request is recorded."""
    typed = cli("run", "echo")

    assert typed.status == 2
    name = str(JobRun.objects.get().pk)[:8]
    assert typed.err.endswith(f"`manage.py cloudrun_jobs show {name}` shows the run.\n")


def test_outage_of_the_service_does_not_end_the_waiting(cli: Cli, cloud: Cloud, emulator: Emulator) -> None:
    """An outage of the service is reported once."""
    deploy(cloud, "exit 0")
    emulator.faults.fail("Executions.GetExecution", times=3)
    typed = cli("run", "echo", "--wait")

    assert (typed.status, typed.err.count("Trying again.")) == (0, 1)


def test_run_without_a_log_has_no_hint_to_it(cli: Cli) -> None:
    """Its output went to the process that started it."""
    name = cli("run", "echo", "--", "--partner=7").out.strip()[:8]

    assert cli("show", name).err == f"`manage.py cloudrun_jobs rerun {name}` runs it again.\n"
