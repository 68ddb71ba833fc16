"""The same scenarios over all four clients, with the same expectations."""

from __future__ import annotations

import pytest

from tests.emulator import frontends
from tests.emulator.cloud import eventually, job
from tests.emulator.gcloud_cli import NEEDS_GCLOUD


def script(text, **options):
    """Return a job whose command is the shell, so that overrides can replace the script."""
    declared = job("/bin/sh", **options)
    declared.template.template.containers[0].args = ["-c", text]
    return declared


@pytest.fixture(
    params=[
        pytest.param(frontends.over_grpc, id="grpc"),
        pytest.param(frontends.over_async_grpc, id="async"),
        pytest.param(frontends.over_rest, id="rest"),
        pytest.param(frontends.over_gcloud, id="gcloud", marks=NEEDS_GCLOUD),
    ]
)
def frontend(request, emulator, tmp_path):
    with request.param(emulator, tmp_path) as frontend:
        yield frontend


def test_job_runs_with_overrides(frontend, cloud):
    """A job is created, run with overrides, and succeeds."""
    frontend.create("work", script("echo declared", task_count=2))
    container = {"args": ["-c", "echo given $A"], "env": [{"name": "A", "value": "1"}]}
    outcome = frontend.outcome(frontend.run("work", {"container_overrides": [container], "task_count": 3}))

    assert (outcome.succeeded, outcome.failed, outcome.cancelled) == (3, 0, 0)
    assert outcome.message.startswith("Execution completed successfully in ")
    assert cloud.output() == ["given 1"] * 3


def test_exit_code_fails_the_execution(frontend):
    """A non-zero exit code fails the execution with the service's message."""
    frontend.create("work", script("exit 3"))
    execution = frontend.run("work")
    outcome = frontend.outcome(execution)

    assert (outcome.succeeded, outcome.failed, outcome.cancelled) == (0, 1, 0)
    assert outcome.message.endswith(
        "-task0 failed with exit code: 3 and message: The container exited with an error."
    )
    assert frontend.exit_codes(execution) == [3]


def test_running_execution_is_cancelled(frontend, cloud):
    """A running execution is cancelled."""
    frontend.create("work", script("echo up; sleep 60"))
    execution = frontend.run("work")
    eventually(cloud.output)
    frontend.cancel(execution)
    outcome = frontend.outcome(execution)

    assert (outcome.succeeded, outcome.failed, outcome.cancelled) == (0, 0, 1)
    assert outcome.message == "Cancelled by user."


def test_missing_job_is_reported(frontend):
    """Running a missing job fails with an error that names it."""
    assert "none" in frontend.error_message("none")


def test_job_is_listed_until_deleted(frontend):
    """A job is listed until it is deleted."""
    frontend.create("work", script("exit 0"))

    assert frontend.jobs() == ["work"]

    frontend.delete("work")

    assert frontend.jobs() == []
