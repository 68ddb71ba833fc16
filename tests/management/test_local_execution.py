"""`cloudrun_jobs run JOB --local`: the tasks of an execution as processes on this machine."""

from __future__ import annotations

import getpass
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from cloudrun_jobs.models import JobRun, Status
from tests.waiting import wait_for

MANAGE = Path(__file__).parents[1] / "manage.py"
pytestmark = pytest.mark.usefixtures("process_database")


def command_line(*arguments: str) -> list[str]:
    return [sys.executable, str(MANAGE), "cloudrun_jobs", "run", *arguments]


def run_locally(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command_line(*arguments), capture_output=True, text=True, timeout=60, check=False, env={**os.environ}
    )


def recorded(run_id: str = "") -> dict[str, Any]:
    """Return the newest run, or the one whose id has this prefix, as another process shows it."""
    listed = subprocess.run(
        [sys.executable, str(MANAGE), "cloudrun_jobs", "runs", "--json"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    [run] = [run for run in json.loads(listed.stdout) if run["id"].startswith(run_id)][:1]
    return run


def test_each_task_is_a_process() -> None:
    """Each line begins with the number of its task; the last message names the next command."""
    done = run_locally("tasks", "--local", "--tasks=4")

    lines = sorted(done.stdout.splitlines())
    assert lines == [f"[{index + 1}/4] task {index} of 4, attempt 0" for index in range(4)]
    assert "[3/4] a message of task 2" in done.stderr.splitlines()
    assert done.returncode == 0
    last = done.stderr.splitlines()[-1]
    assert last.startswith("4 tasks have ended: succeeded. `manage.py cloudrun_jobs show ")
    run_id = last.split()[8].rstrip("`")
    assert recorded(run_id)["status"] == "succeeded"


def test_entries_are_shown_by_their_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Log entries in JSON are shown as their messages."""
    monkeypatch.setenv("DJANGO_SETTINGS_MODULE", "tests.logs.recipe_settings")
    monkeypatch.setenv("RECIPE", "json")
    done = run_locally("tasks", "--local")

    lines = done.stdout.splitlines()
    assert "[1/2] task 0 of 2, attempt 0" in lines
    assert any(line.startswith("[1/2] Job tasks-test finished in ") for line in lines)
    assert "{" not in done.stdout


def test_arguments_follow_two_hyphens() -> None:
    """The number of tasks is that of the job, and a failed attempt is retried as Cloud Run retries it."""
    done = run_locally("tasks", "--local", "--", "--fail-task=1", "--fail-attempts=1")

    assert sorted(done.stdout.splitlines()) == [
        "[1/2] task 0 of 2, attempt 0",
        "[2/2] task 1 of 2, attempt 0",
        "[2/2] task 1 of 2, attempt 1",
    ]
    assert done.returncode == 0


def test_a_failed_task_fails_the_command() -> None:
    done = run_locally("tasks", "--local", "--tasks=3", "--", "--fail-task=1")

    assert done.returncode == 1
    assert "[2/3] attempt 0 exited with status 1; attempt 1 starts" in done.stderr
    assert (
        "1 of 3 tasks failed: [2/3]. CommandError: failed on purpose. `manage.py cloudrun_jobs show" in done.stderr
    )
    assert "[2/3] CommandError: failed on purpose" in done.stderr
    assert recorded()["status"] == "failed"


@pytest.fixture
def waiting(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """An execution whose two tasks wait forever."""
    folder = tmp_path / "started"
    folder.mkdir()
    arguments = ("tasks", "--local", "--", f"--wait-in={folder}")
    process = subprocess.Popen(
        command_line(*arguments),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell may have started the tests in the background, where SIGINT is ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    wait_for(lambda: len(list(folder.iterdir())) == 2, seconds=90)
    yield process
    process.kill()
    process.communicate()


def processes_of(parent: int) -> list[str]:
    found = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(parent)], capture_output=True, text=True, check=False
    )
    return found.stdout.split()


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.faults)])
def test_ctrl_c_ends_all_tasks(waiting: subprocess.Popen[str], number: signal.Signals) -> None:
    """Within ten seconds; the run is cancelled."""
    tasks = processes_of(waiting.pid)
    assert len(tasks) == 2
    waiting.send_signal(number)
    before = time.monotonic()
    _, err = waiting.communicate(timeout=30)

    assert time.monotonic() - before < 10
    assert waiting.returncode == 130
    assert "the run is cancelled, and its tasks have ended. `manage.py cloudrun_jobs rerun " in err
    assert not any(Path(f"/proc/{task}").exists() for task in tasks)
    assert recorded()["status"] == "cancelled"


@pytest.mark.faults
def test_killed_tasks_have_failed(waiting: subprocess.Popen[str]) -> None:
    """Each task is retried once; then the run is recorded as failed."""
    for index, attempt in ((0, 0), (0, 1), (1, 0), (1, 1)):
        variables = {f"CLOUD_RUN_TASK_INDEX={index}", f"CLOUD_RUN_TASK_ATTEMPT={attempt}"}
        os.kill(wait_for(lambda wanted=variables: process_with(waiting.pid, wanted)), signal.SIGKILL)
    _, err = waiting.communicate(timeout=60)

    assert waiting.returncode == 1
    assert "[2/2] attempt 1 was ended by SIGKILL" in err
    assert "2 of 2 tasks failed: [1/2], [2/2]. task 0 was ended by SIGKILL, task 1 was ended by SIGKILL." in err
    run = recorded()
    assert (run["status"], run["requested_by"]) == ("failed", getpass.getuser())


def process_with(parent: int, variables: set[str]) -> int | None:
    """Return the child process that has these environment variables."""
    for pid in processes_of(parent):
        with suppress(OSError):  # It has ended.
            if variables <= {*Path(f"/proc/{pid}/environ").read_text().split("\0")}:
                return int(pid)
    return None


@pytest.mark.faults
def test_a_process_that_is_killed_in_reduce_fails_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing else would end the run: both attempts of the last task are killed."""
    monkeypatch.setenv("DIE_IN_REDUCE", "1")
    done = run_locally("tasks", "--local")

    assert done.returncode == 1
    assert (recorded()["status"], recorded()["reason"]) == ("failed", "reduce")


REFUSED = {
    "an unknown job": (["echos", "--local"], "'echos' is not a Cloud Run job. Did you mean 'echo'"),
    "no task": (["echo", "--local", "--tasks=0"], "--tasks: expected 1 to 1000 with --local, got 0"),
    "too many tasks": (["echo", "--local", "--tasks=1001"], "expected 1 to 1000"),
    "an unknown option": (["echo", "--local", "--", "--partnr=7"], "unrecognized arguments: --partnr"),
    "a wrong type": (["echo", "--", "--partner=x"], "invalid int value: 'x'"),
}


@pytest.mark.parametrize(("arguments", "message"), REFUSED.values(), ids=REFUSED)
def test_bad_input_starts_nothing(arguments: list[str], message: str) -> None:
    with pytest.raises(CommandError) as refused:
        call_command("cloudrun_jobs", "run", *arguments)

    assert message in str(refused.value)
    assert "=7" not in str(refused.value)


@pytest.mark.django_db
def test_without_local_the_run_is_requested(capsys: pytest.CaptureFixture[str]) -> None:
    """As `delay_argv()` does: in the environment "test" it runs in this process."""
    call_command("cloudrun_jobs", "run", "echo", "--", "--partner=7", "--", "a", "--note")
    run = JobRun.objects.get()

    assert (run.status, run.result) == (Status.SUCCEEDED, {"words": ["a", "--note"], "partner": 7, "note": None})
    out, err = capsys.readouterr()
    assert out == f"{run.pk}\n"
    assert f"cloudrun_jobs show {str(run.pk)[:8]}" in err


def test_other_subcommands_take_no_arguments_of_a_job() -> None:
    with pytest.raises(CommandError, match="only the subcommand `run` takes them"):
        call_command("cloudrun_jobs", "runs", "--", "x")
