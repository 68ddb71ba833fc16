"""Run the gcloud commands that `doctor` prints, and check that they fix the faults."""

from __future__ import annotations

import shlex
import subprocess
from functools import partial
from pathlib import Path

import pytest

from tests.doctor.faults import GCLOUD, Fault
from tests.doctor.project import OWNER, Project
from tests.doctor.test_faults import mend_all
from tests.emulator.gcloud_cli import NEEDS_GCLOUD, Gcloud

# One fault for each kind of command.
KINDS = {
    "project": (
        *("api_disabled", "account_missing", "scheduler_role", "container_ambiguous", "schedule_failing"),
        *("schedule_disabled", "secret_missing", "secret_version", "permission_schedules"),
    ),
    "service": ("service_cold", "service_invoker", "service_traffic"),
}


def run(gcloud: Gcloud, project: Project, _: Fault, fix: str) -> None:
    """Run command lines as they are shown. Secrets are read from the standard input."""
    for line in fix.split(" && "):
        if line.startswith("manage.py"):
            project.mend(line)
            continue
        environment = gcloud.environment()
        command, given = shlex.split(line), "some value"
        done = subprocess.run(
            command, input=given, capture_output=True, text=True, timeout=90, env=environment, check=False
        )
        assert done.returncode == 0, done.stderr


@NEEDS_GCLOUD
@pytest.mark.parametrize("ids", KINDS.values(), ids=KINDS)
def test_gcloud_mends(ids: tuple[str, ...], project: Project, tmp_path: Path) -> None:
    """The faults are gone after their commands."""
    owner = project.emulator.tokens.access_token(OWNER)
    gcloud = Gcloud(http=project.emulator.http, directory=tmp_path, token=owner)
    faults = {str(fault): fault for fault in GCLOUD}

    mend_all(project, [faults[id_] for id_ in ids], partial(run, gcloud))
