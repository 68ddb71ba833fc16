"""The README's commands do what it says, block by block, in a fresh project."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

README = Path(__file__).parents[1] / "README.md"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
WHEN = re.compile(r"next .*|\d{4}-\d\d-\d\d \d\d:\d\d:\d\d")


def test_the_demo_prints_what_the_readme_shows(tmp_path: Path) -> None:
    """On an empty database, each line shown is printed, in that order."""
    done = subprocess.run(
        [sys.executable, "example_project/demo.py"],
        cwd=README.parent,
        env={**os.environ, "EXAMPLE_DATABASE": str(tmp_path / "db.sqlite3"), "CLOUDRUN_JOBS_ENVIRONMENT": "local"},
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    shown = BLOCK.search(README.read_text().partition("`make demo`")[2])
    printed = iter(done.stdout.splitlines())

    assert shown is not None
    lines = [line.removeprefix("...") for line in shown[2].splitlines()]
    assert [line for line in lines if not any(other.endswith(line) for other in printed)] == []


def blocks(title: str) -> list[tuple[str, str]]:
    """The code blocks of the section, with their languages."""
    section = README.read_text().partition(f"\n## {title}\n")[2].partition("\n## ")[0]
    return BLOCK.findall(section)


def run(directory: Path, script: str) -> str:
    """Run shell lines as a reader would; the package itself is installed already."""
    done = subprocess.run(
        ["bash", "-euc", script.replace("pip install", ": pip install")],
        cwd=directory,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
        check=False,
    )

    assert done.returncode == 0, done.stdout
    return done.stdout


def environment() -> dict[str, str]:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    return {**{name: os.environ[name] for name in os.environ if name != "DJANGO_SETTINGS_MODULE"}, "PATH": path}


@contextmanager
def emulator(project: Path) -> Iterator[str]:
    """Serve one as the README does, but on free ports, and give its address."""
    argv = [sys.executable, "manage.py", "cloudrun_emulator", "--port=0", "--grpc-port=0", "--json"]
    with subprocess.Popen(argv, cwd=project, env=environment(), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield json.loads(process.stdout.readline())["grpc"]
        finally:
            process.terminate()


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """The project of the quickstart: each file goes where its first line says, each output is as shown."""
    project, output = tmp_path / "mysite", ""
    for language, text in blocks("Quickstart"):
        if language == "sh":
            output = run(project if project.exists() else tmp_path, text)
        elif language == "text":
            assert output == text
        else:
            first, _, body = text.partition("\n")
            file = project / first.removeprefix("# ").partition(",")[0]
            file.write_text((file.read_text() if "at the end" in first else "") + body)
    return project


def test_the_readme_works_in_a_fresh_project(project: Path) -> None:
    """After the quickstart, the job runs on the emulator, by the commands shown, which print what is shown."""
    shells = [text for language, text in blocks("A Cloud Run on your own machine") if language == "sh"]
    shown = [text for language, text in blocks("A Cloud Run on your own machine") if language == "text"]
    with emulator(project) as address:
        place, *scripts = (shell.replace("127.0.0.1:8086", address) for shell in shells[1:])
        exports = "".join(line for line in place.splitlines(keepends=True) if line.startswith("export "))
        outputs = [run(project, place), *(run(project, exports + script) for script in scripts)]

    assert [WHEN.sub("…", output) for output in outputs] == [WHEN.sub("…", text) for text in shown]
    assert [language for language, _ in blocks("Quickstart")].count("text") == 4
