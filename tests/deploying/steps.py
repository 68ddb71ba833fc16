"""Read the steps of the deployment files, as GitHub Actions and Cloud Build do, and run their scripts."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from string import Template
from typing import Any

import yaml

from tests.emulator.gcloud_cli import PROJECT, REGION

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "example_project" / "deploy"
REPOSITORY = f"{REGION}-docker.pkg.dev/{PROJECT}/app/web"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
IMAGE = f"{REPOSITORY}:{COMMIT}"
EXPRESSION = re.compile(r"\$\{\{ (.+?) \}\}")
WORKER = {"INSTANCES": "2", "NETWORK": "default", "SUBNETWORK": "workers"}


@dataclass(frozen=True)
class Step:
    """One script, and the environment in which it runs."""

    name: str
    script: str
    environment: dict[str, str]


def github_steps(branch: str = "main", variables: dict[str, str] | None = None) -> list[Step]:
    """Return the steps of deploy.yml that are scripts, with its expressions replaced."""
    given = {"PROJECT_ID": PROJECT, "REGION": REGION, **(variables or {})}
    values = {f"vars.{name}": given.get(name, "") for name in ("PROJECT_ID", "REGION", "NETWORK", "SUBNETWORK")}
    values["vars.INSTANCES || '0'"] = given.get("INSTANCES", "0")
    values["github.sha"] = COMMIT
    environment = {"main": "production", "staging": "staging"}[branch]
    values["github.ref_name == 'main' && 'production' || 'staging'"] = environment
    job = yaml.safe_load((FOLDER / "deploy.yml").read_text())["jobs"]["deploy"]
    env = {name: EXPRESSION.sub(lambda match: values[match[1]], text) for name, text in job["env"].items()}
    # google-github-actions/auth writes this file.
    env["GOOGLE_APPLICATION_CREDENTIALS"] = "/credentials.json"
    return [Step(step["name"], in_image(step["run"]), env) for step in job["steps"] if "run" in step]


def cloud_build_steps(substitutions: dict[str, str] | None = None) -> list[Step]:
    """Return the steps of cloudbuild.yaml, with its substitutions replaced."""
    build = yaml.safe_load((FOLDER / "cloudbuild.yaml").read_text())
    values = {**build["substitutions"], "_REGION": REGION, "PROJECT_ID": PROJECT, "BUILD_ID": COMMIT}
    values |= {f"_{name}": value for name, value in (substitutions or {}).items()}
    values["_IMAGE"] = Template(values["_IMAGE"]).substitute(values)
    env = dict(Template(text).substitute(values).split("=", 1) for text in build["options"]["env"])
    scripts = {step["id"]: step.get("script") or step["entrypoint"] for step in build["steps"]}
    return [Step(name, in_image(script), env) for name, script in scripts.items()]


def in_image(script: str) -> str:
    """Return the script with the paths of the image replaced: the project is at /app there."""
    return script.replace("/app/", f"{shlex.quote(str(ROOT))}/")


def with_token(steps: list[Step], token: str) -> list[Step]:
    """Return the steps with an access token for the image's commands, instead of credentials in a file."""
    changed = []
    for step in steps:
        options = json.dumps({**json.loads(step.environment["CLOUDRUN_JOBS_OPTIONS"]), "access_token": token})
        changed.append(replace(step, environment={**step.environment, "CLOUDRUN_JOBS_OPTIONS": options}))
    return changed


# The first lines are a shell script too: the path of an interpreter in `#!` must not contain a space.
STUB = """#!/bin/sh
'''exec' "{python}" -IS "$0" "$@"
' '''
import json, os, sys
name, args = os.path.basename(sys.argv[0]), sys.argv[1:]
with open({record!r}, "a") as record:
    record.write(json.dumps([name, *args]) + "\\n")
if name in {failing!r}:
    sys.exit("planted failure")
if name == "gcloud" and args[0] not in ("auth", "builds"):
    os.execv({gcloud!r}, ["gcloud", *args])
if args[:1] == ["run"] and "--entrypoint" in args:
    script = args[args.index("--entrypoint") + 1]
    os.execv(script, [script])
"""


@dataclass
class Machine:
    """A machine on which steps run: docker and `gcloud auth` are recorded, everything else is real."""

    directory: Path
    environment: dict[str, str] = field(default_factory=dict)
    failing: tuple[str, ...] = ()
    stubs: tuple[str, ...] = ("docker", "gcloud", "apt-get")

    @property
    def record(self) -> Path:
        return self.directory / "record.jsonl"

    def recorded(self) -> list[list[str]]:
        """Return the commands of stubs, with their arguments."""
        lines = self.record.read_text().splitlines() if self.record.exists() else []
        return [json.loads(line) for line in lines]

    def run(self, step: Step, timeout: float = 300) -> subprocess.CompletedProcess[str]:
        """Run a step's script as GitHub Actions and Cloud Build do: by `bash -e`, in the project's directory."""
        bin_directory = self.directory / "bin"
        bin_directory.mkdir(exist_ok=True)
        names = {"python": sys.executable, "record": str(self.record), "failing": self.failing}
        text = STUB.format(**names, gcloud=shutil.which("gcloud", path=self.environment.get("PATH")))
        for name in {*self.stubs, *self.failing}:
            (bin_directory / name).write_text(text)
            (bin_directory / name).chmod(0o755)
        path = os.pathsep.join((str(bin_directory), str(Path(sys.executable).parent), os.environ["PATH"]))
        environment = {**self.environment, **step.environment, "PATH": path}
        command = ["bash", "-e", "-c", step.script]
        return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=timeout)

    def deploy(self, steps: list[Step]) -> tuple[list[str], Any]:
        """Run the steps until one fails; return the names of those that ran, and the last one's result."""
        names = []
        for step in steps:
            names.append(step.name)
            done = self.run(step)
            if done.returncode:
                break
        return names, done
