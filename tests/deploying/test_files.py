"""The deployment's files: valid for GitHub Actions and Cloud Build, and each step fails if its command fails."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.deploying.steps import FOLDER, IMAGE, ROOT, WORKER, Machine, cloud_build_steps, github_steps

TOOLS = Path(sys.executable).parent
SCRIPTS = sorted(path.name for path in FOLDER.glob("*.sh"))
NAMES = ["Build", "Push", "Migrate", "New revision", "Sync", "Smoke test", "Traffic", "Worker"]


def output(*command: str | Path) -> str:
    """Return all that a tool prints, and its exit code if it is not 0."""
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    return ran.stdout + ran.stderr + (f"exit code {ran.returncode}" if ran.returncode else "")


@pytest.mark.parametrize(
    ("name", "schema"),
    [
        ("deploy.yml", "vendor.github-workflows"),
        ("cloudbuild.yaml", "vendor.cloudbuild"),
        ("build.yaml", "vendor.cloudbuild"),
    ],
)
def test_schema(name, schema):
    """Each file fits the schema of the service that reads it."""
    assert "ok" in output(TOOLS / "check-jsonschema", "--builtin-schema", schema, FOLDER / name)


def test_zizmor_finds_nothing():
    """The workflow has no weakness that zizmor knows, in the strictest persona but for its stylistic rules."""
    found = output(TOOLS / "zizmor", "--offline", "--no-progress", "--persona=auditor", FOLDER / "deploy.yml")

    assert "No findings to report" in found


def test_zizmor_finds_a_planted_weakness(tmp_path):
    """An action that is not pinned and an expression in a script are found."""
    text = (FOLDER / "deploy.yml").read_text().replace("11bd71901bbe5b1630ceea73d27597364c9af683 # v4.2.2", "v4")
    planted = tmp_path / "deploy.yml"
    planted.write_text(text.replace("run: example_project/deploy/migrate.sh", "run: echo ${{ github.head_ref }}"))
    found = output(TOOLS / "zizmor", "--offline", "--no-progress", planted)

    assert ("unpinned-uses" in found, "template-injection" in found) == (True, True)


@pytest.mark.parametrize("name", SCRIPTS)
def test_shellcheck_finds_nothing(name):
    """shellcheck finds no fault in any script, and each stops at the first error."""
    lines = (FOLDER / name).read_text().splitlines()

    assert output(TOOLS / "shellcheck", FOLDER / name) == ""
    assert (lines[0], lines[2], lines[1][:2]) == ("#!/bin/sh", "set -eu", "# ")


def test_both_files_have_the_same_steps():
    """GitHub Actions and Cloud Build do the same, in the same order, with the same scripts."""
    github, build = github_steps(), cloud_build_steps()
    scripts = [step.script for step in github if step.script.endswith(".sh")]

    assert [step.name for step in github] == [step.name for step in build] == NAMES
    assert [script for script in scripts if not any(script in step.script for step in build)] == []
    assert github[0].environment["IMAGE"] == build[0].environment["IMAGE"] == IMAGE
    names = set(build[0].environment) | {"GOOGLE_APPLICATION_CREDENTIALS"}
    assert set(github[0].environment) == names


def test_staging_is_deployed_by_its_branch():
    """The branch `staging` deploys to staging, by the same steps; no other branch deploys."""
    [step, *_] = github_steps("staging")
    workflow = yaml.safe_load((FOLDER / "deploy.yml").read_text())

    assert step.environment["ENVIRONMENT"] == "staging"
    assert workflow[True] == {"push": {"branches": ["main", "staging"]}}


def test_image_is_built_before_credentials_are_written():
    """google-github-actions/auth writes credentials into the directory that Docker copies from."""
    text = (FOLDER / "deploy.yml").read_text()

    assert text.index("docker build") < text.index("google-github-actions/auth")


def test_every_script_is_used_by_both():
    """There is no script that neither file runs."""
    texts = [(FOLDER / name).read_text() for name in ("deploy.yml", "cloudbuild.yaml")]

    assert [(script, text[:20]) for script in SCRIPTS for text in texts if script not in text] == []


@pytest.mark.parametrize("steps", [github_steps, cloud_build_steps])
@pytest.mark.parametrize("index", range(len(NAMES)), ids=NAMES)
def test_step_fails_with_its_command(steps, index, tmp_path):
    """Each step fails if its command fails, so that no later step runs."""
    step = steps("main", WORKER)[index] if steps is github_steps else steps(WORKER)[index]
    machine = Machine(tmp_path, failing=("gcloud", "docker", "curl", "python"))
    done = machine.run(step)

    assert done.returncode != 0, done.stdout
    assert "planted failure" in done.stderr


def test_worker_is_left_out_without_instances(tmp_path):
    """A project without a Celery worker needs no manifest: the step succeeds and calls nothing."""
    machine = Machine(tmp_path, failing=("gcloud",))
    done = machine.run(github_steps()[-1])

    assert (done.returncode, machine.recorded()) == (0, [])
