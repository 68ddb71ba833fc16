"""The commands of gcloud that `doctor` shows mend the faults, run as they are shown."""

from __future__ import annotations

import shlex
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.doctor.faults import GCLOUD, Fault
from tests.doctor.project import OWNER, Project
from tests.emulator.gcloud_cli import NEEDS_GCLOUD, Gcloud

# A tick that is overdue remains so until a container has recorded a run.
MENDED = [fault for fault in GCLOUD if fault.id != "schedule_overdue"]
SERVICES = ("serviceusage", "iam", "cloudresourcemanager")


@dataclass
class Shell(Gcloud):
    """Runs command lines of gcloud as the owner of a project."""

    project: Project

    def environment(self) -> dict[str, str]:
        token = self.project.emulator.tokens.access_token(OWNER)
        overrides = {
            f"CLOUDSDK_API_ENDPOINT_OVERRIDES_{name.upper()}": f"http://{name}.googleapis.com/"
            for name in SERVICES
        }
        return {**super().environment(), **overrides, "CLOUDSDK_AUTH_ACCESS_TOKEN": token}

    def run(self, line: str) -> None:
        secret = self.directory / "secret"
        secret.write_text("some value")
        command = shlex.split(line.replace("--data-file=FILE", f"--data-file={secret}"))
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=90, env=self.environment(), check=False
        )
        assert done.returncode == 0, done.stderr


@NEEDS_GCLOUD
@pytest.mark.parametrize("fault", MENDED, ids=str)
def test_gcloud_mends(fault: Fault, project: Project, tmp_path: Path) -> None:
    """The fault is gone after its command."""
    fault.plant(project)
    (found,) = project.doctor().findings
    shell = Shell(http=project.emulator.http, directory=tmp_path, project=project)

    for line in found["fix"].split(" && "):
        project.mend(line) if line.startswith("manage.py") else shell.run(line)

    assert project.doctor().findings == []
