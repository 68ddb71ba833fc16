"""The same scenarios through all four faces, with the same expectations."""

from __future__ import annotations

import pytest

from tests.emulator import faces
from tests.emulator.cloud import eventually, job
from tests.emulator.gcloud_cli import NEEDS_GCLOUD


def script(text, **options):
    """A job whose command is the shell, so that overrides can replace what the shell is to do."""
    declared = job("/bin/sh", **options)
    declared.template.template.containers[0].args = ["-c", text]
    return declared


@pytest.fixture(
    params=[
        pytest.param(faces.over_grpc, id="grpc"),
        pytest.param(faces.over_async_grpc, id="async"),
        pytest.param(faces.over_rest, id="rest"),
        pytest.param(faces.over_gcloud, id="gcloud", marks=NEEDS_GCLOUD),
    ]
)
def face(request, emulator, tmp_path):
    with request.param(emulator, tmp_path) as face:
        yield face


def test_success(face, cloud):
    """A job is created, run with overrides, and succeeds."""
    face.create("work", script("echo declared", task_count=2))
    container = {"args": ["-c", "echo given $A"], "env": [{"name": "A", "value": "1"}]}
    ending = face.ending(face.run("work", {"container_overrides": [container], "task_count": 3}))

    assert (ending.succeeded, ending.failed, ending.cancelled) == (3, 0, 0)
    assert ending.message.startswith("Execution completed successfully in ")
    assert cloud.output() == ["given 1"] * 3


def test_failure(face):
    """A task that exits with an error fails the execution, in the service's words."""
    face.create("work", script("exit 3"))
    execution = face.run("work")
    ending = face.ending(execution)

    assert (ending.succeeded, ending.failed, ending.cancelled) == (0, 1, 0)
    assert ending.message.endswith(
        "-task0 failed with exit code: 3 and message: The container exited with an error."
    )
    assert face.exit_codes(execution) == [3]


def test_cancel(face, cloud):
    """A running execution is cancelled."""
    face.create("work", script("echo up; sleep 60"))
    execution = face.run("work")
    eventually(cloud.output)
    face.cancel(execution)
    ending = face.ending(execution)

    assert (ending.succeeded, ending.failed, ending.cancelled) == (0, 0, 1)
    assert ending.message == "Cancelled by user."


def test_missing_job(face):
    """To run a job that does not exist fails, and names it."""
    assert "none" in face.refusal("none")


def test_delete(face):
    """A job is listed until it is deleted."""
    face.create("work", script("exit 0"))

    assert face.jobs() == ["work"]

    face.delete("work")

    assert face.jobs() == []
