"""What the tools that read container files say about ours."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TOOLS = Path(sys.executable).parent
SCRIPTS = sorted(
    path.relative_to(ROOT) for top in ("docker", "requirements", "tests") for path in (ROOT / top).rglob("*.sh")
)


def run(*command: str | Path) -> str:
    """Run in the project's directory, and return all that was printed, and the exit code if it is not 0."""
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return ran.stdout + ran.stderr + (f"exit code {ran.returncode}" if ran.returncode else "")


@pytest.mark.parametrize("script", SCRIPTS, ids=str)
def test_shellcheck_finds_nothing(script: Path) -> None:
    """Every shell script is one that shellcheck has nothing to say about."""
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


def test_compose_file_follows_the_schema() -> None:
    """docker-compose.yml is valid by the compose specification's schema."""
    checked = run(TOOLS / "check-jsonschema", "--builtin-schema", "vendor.compose-spec", "docker-compose.yml")

    assert checked == "ok -- validation done\n"


def test_docker_compose_accepts_the_file() -> None:
    """Docker Compose, where there is one, reads docker-compose.yml without a word."""
    if not shutil.which("docker") or "unknown command" in run("docker", "compose", "version"):
        pytest.skip("No docker compose here: `make test-containers` brings its own.")

    assert run("docker", "compose", "config", "-q") == ""
