"""The commands of gcloud that `doctor` shows mend the faults, run as they are shown."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path

import pytest

from tests.doctor.faults import GCLOUD, Fault
from tests.doctor.project import OWNER, Project
from tests.emulator.gcloud_cli import NEEDS_GCLOUD, Gcloud

# A tick that is overdue remains so until a container has recorded a run.
MENDED = [fault for fault in GCLOUD if fault.id != "schedule_overdue"]


def run(gcloud: Gcloud, line: str) -> None:
    """Run a command line of gcloud as it is shown."""
    secret = gcloud.directory / "secret"
    secret.write_text("some value")
    command = shlex.split(line.replace("--data-file=FILE", f"--data-file={secret}"))
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=90, env=gcloud.environment(), check=False
    )
    assert done.returncode == 0, done.stderr


@NEEDS_GCLOUD
@pytest.mark.parametrize("fault", MENDED, ids=str)
def test_gcloud_mends(fault: Fault, project: Project, tmp_path: Path) -> None:
    """The fault is gone after its command."""
    fault.plant(project)
    (found,) = project.doctor().findings
    owner = project.emulator.tokens.access_token(OWNER)
    gcloud = Gcloud(http=project.emulator.http, directory=tmp_path, token=owner)

    for line in found["fix"].split(" && "):
        project.mend(line) if line.startswith("manage.py") else run(gcloud, line)

    assert project.doctor().findings == []
