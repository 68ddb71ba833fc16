"""The repository's own files: scripts, container files, workflows and templates, each checked by a tool."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from fnmatch import fnmatch
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
TOOLS = Path(sys.executable).parent
SCRIPTS = sorted(
    path.relative_to(ROOT) for top in ("docker", "requirements", "tests") for path in (ROOT / top).rglob("*.sh")
)
GITHUB = ROOT / ".github"
MANIFESTS = sorted((ROOT / "docker/celery").glob("*.yaml"))
SCHEMAS = {
    "docker-compose.yml": "vendor.compose-spec",
    ".github/dependabot.yml": "vendor.dependabot",
    ".github/ISSUE_TEMPLATE/config.yml": "vendor.github-issue-config",
    ".github/ISSUE_TEMPLATE/bug.yml": "vendor.github-issue-forms",
    ".github/ISSUE_TEMPLATE/feature.yml": "vendor.github-issue-forms",
    ".github/workflows/ci.yml": "vendor.github-workflows",
    ".github/workflows/release.yml": "vendor.github-workflows",
}
USES = re.compile(r"uses: (.+)")
PINNED = re.compile(r"\./\S+|[\w/-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+")
YAML_STYLE = """
extends: default
rules:
  braces: {max-spaces-inside: 1}
  comments: {min-spaces-from-content: 1}
  document-start: disable
  line-length: {max: 120}
  truthy: {check-keys: false}
"""


def run(*command: str | Path) -> str:
    """Run in the project's directory, and return all that was printed, and the exit code if it is not 0."""
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return ran.stdout + ran.stderr + (f"exit code {ran.returncode}" if ran.returncode else "")


@pytest.mark.parametrize("script", [*SCRIPTS, Path(".ci/run")], ids=str)
def test_shellcheck_finds_nothing(script: Path) -> None:
    """shellcheck finds no fault in any shell script."""
    assert run(TOOLS / "shellcheck", script) == ""


@pytest.mark.parametrize("script", SCRIPTS, ids=str)
def test_scripts_stop_at_the_first_error(script: Path) -> None:
    """Every shell script is for any sh, and stops at an error and at an unset variable."""
    lines = (ROOT / script).read_text().splitlines()

    assert lines[0] == "#!/bin/sh"
    assert next(line for line in lines if not line.startswith("#")) == "set -eu"


def test_hadolint_finds_nothing() -> None:
    """The Dockerfile follows hadolint's rules, the one exception beside its reason."""
    assert run(TOOLS / "hadolint", "DockerfileServer") == ""


@pytest.mark.parametrize("ignored", [".dockerignore", ".gitignore"])
@pytest.mark.parametrize("name", ["secrets.json", "secrets.json.lock", ".secrets.json.a1b2c3d4"])
def test_local_secrets_stay_on_this_machine(ignored: str, name: str) -> None:
    """Neither the image nor the repository gets the example's file of secrets, or what an update left there."""
    patterns = [line.lstrip("/") for line in (ROOT / ignored).read_text().splitlines() if line != "*"]

    assert any(fnmatch(f"example_project/{name}", pattern) for pattern in patterns)


@pytest.mark.parametrize(("name", "schema"), SCHEMAS.items())
def test_file_follows_its_schema(name: str, schema: str) -> None:
    """Every file that a service reads is valid by the schema of that service."""
    assert run(TOOLS / "check-jsonschema", "--builtin-schema", schema, name) == "ok -- validation done\n"


def test_every_github_file_has_a_schema() -> None:
    """No YAML file for the forge is left out of the check above."""
    found = {str(path.relative_to(ROOT)) for path in GITHUB.rglob("*.y*ml")}

    assert found == {name for name in SCHEMAS if name.startswith(".github/")}


def test_yamllint_finds_nothing() -> None:
    """yamllint finds no fault in any YAML file."""
    assert (
        run(TOOLS / "yamllint", "--strict", "-d", YAML_STYLE, ".pre-commit-config.yaml", *MANIFESTS, *SCHEMAS)
        == ""
    )


def test_actions_are_pinned() -> None:
    """Every workflow names an action by the commit of a release, or a workflow of this repository."""
    used = [found for path in (GITHUB / "workflows").iterdir() for found in USES.findall(path.read_text())]

    assert used
    assert [action for action in used if not PINNED.fullmatch(action)] == []


def test_all_green_needs_every_job() -> None:
    """The one required job of CI waits for all others."""
    jobs = yaml.safe_load((GITHUB / "workflows/ci.yml").read_text())["jobs"]
    needs = jobs.pop("all-green")["needs"]

    assert sorted(needs) == sorted(jobs)


@pytest.mark.parametrize(
    ("axis", "classifier"), [("python", "Programming Language :: Python"), ("django", "Framework :: Django")]
)
def test_ci_tests_what_the_classifiers_promise(axis: str, classifier: str) -> None:
    """CI's matrix has the versions of Python and Django that pyproject.toml declares, and no others."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    jobs = yaml.safe_load((GITHUB / "workflows/ci.yml").read_text())["jobs"]
    tested = {pair[axis] for pair in jobs["tests"]["strategy"]["matrix"]["include"]}

    assert tested == set(re.findall(rf"{classifier} :: (\d+\.\d+)", "\n".join(project["classifiers"])))


def test_docker_compose_accepts_the_file() -> None:
    """Docker Compose, where there is one, reads docker-compose.yml without a warning."""
    if not shutil.which("docker") or "unknown command" in run("docker", "compose", "version"):
        pytest.skip("No docker compose here: `make test-containers` brings its own.")

    assert run("docker", "compose", "config", "-q") == ""
