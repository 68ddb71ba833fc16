"""Apply a Terraform document to an emulator, and run Terraform itself."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from google.cloud import run_v2, scheduler_v1
from google.protobuf import json_format

from cloudrun_jobs.emulator import Emulator
from tests.deploy.commands import PLACE

NEEDS_TERRAFORM = pytest.mark.skipif(shutil.which("terraform") is None, reason="terraform is not installed")
# A Python with the packages of tests/deploy/export/provider.py, which stands in for Google's provider.
PROVIDER = os.environ.get("TESTS_TERRAFORM_PYTHON", "")
NEEDS_PROVIDER = pytest.mark.skipif(not PROVIDER, reason="TESTS_TERRAFORM_PYTHON is not set: make test-clients")
REFERENCE = re.compile(r"\$\{(\w+)\.([\w-]+)\.(\w+)\}")


def resources(document: str) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = json.loads(document)["resource"]
    return found


def evaluated(value: Any, within: dict[str, dict[str, Any]]) -> Any:
    """Return a value with its references resolved. Raises KeyError for an unknown one."""
    if isinstance(value, dict):
        return {name: evaluated(item, within) for name, item in value.items()}
    if isinstance(value, list):
        return [evaluated(item, within) for item in value]
    if not isinstance(value, str):
        return value
    text = re.sub(r"(?<!\$)" + REFERENCE.pattern, lambda found: _attribute(within, *found.groups()), value)
    return re.sub(r"([$%])\1\{", r"\1{", text)


def _attribute(within: dict[str, dict[str, Any]], kind: str, name: str, attribute: str) -> str:
    resource = within[kind][name]
    if attribute == "email":
        return f"{resource['account_id']}@{resource['project']}.iam.gserviceaccount.com"
    value: str = resource[attribute]
    return value


def apply(document: str, emulator: Emulator) -> None:
    """Create the jobs and Scheduler jobs: Terraform's arguments are named like the services' fields."""
    within = resources(document)
    for resource in evaluated(within["google_cloud_run_v2_job"], within).values():
        job = run_v2.Job()
        _parse(resource, job, "name", "location", "project", "depends_on")
        emulator.clients.jobs.create_job(parent=PLACE, job=job, job_id=resource["name"])
    for resource in evaluated(within.get("google_cloud_scheduler_job", {}), within).values():
        scheduler_job = scheduler_v1.Job(name=f"{PLACE}/jobs/{resource['name']}")
        _parse(resource, scheduler_job, "//", "name", "region", "project")
        emulator.clients.scheduler.create_job(parent=PLACE, job=scheduler_job)


def _parse(resource: dict[str, Any], message: Any, *others: str) -> None:
    fields = {name: value for name, value in resource.items() if name not in others}
    json_format.ParseDict(fields, type(message).pb(message))


def terraform(directory: Path, *args: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "CHECKPOINT_DISABLE": "1", "TF_CLI_CONFIG_FILE": str(directory / "terraform.rc")}
    command = ("terraform", *args)
    return subprocess.run(command, cwd=directory, capture_output=True, text=True, timeout=90, env=env)


def install_provider(directory: Path) -> None:
    """Let Terraform in this directory use the stand-in for Google's provider."""
    program = directory / "terraform-provider-google"
    command = shlex.join([PROVIDER, str(Path(__file__).with_name("provider.py"))])
    program.write_text(f'#!/bin/sh\nexec {command} "$@"\n')
    program.chmod(0o755)
    overrides = f'dev_overrides {{\n"hashicorp/google" = "{directory}"\n}}'
    (directory / "terraform.rc").write_text(f"provider_installation {{\n{overrides}\ndirect {{}}\n}}\n")
