"""The README's quickstart does what it says, block by block, in a fresh project."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

README = Path(__file__).parents[1] / "README.md"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


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


def quickstart() -> list[tuple[str, str]]:
    """The code blocks of the section, with their languages."""
    section = README.read_text().partition("\n## Quickstart\n")[2].partition("\n## ")[0]
    return BLOCK.findall(section)


def run(directory: Path, script: str) -> str:
    """Run shell lines as a reader would; the package itself is installed already."""
    environment = {name: value for name, value in os.environ.items() if name != "DJANGO_SETTINGS_MODULE"}
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(
        ["bash", "-euc", script.replace("pip install", ": pip install")],
        cwd=directory,
        env={**environment, "PATH": path},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_quickstart_works_in_a_fresh_project(tmp_path: Path) -> None:
    """Every command runs, every file goes where its first line says, every output is the one printed."""
    blocks, project, output = quickstart(), tmp_path / "mysite", ""
    for language, text in blocks:
        if language == "sh":
            output = run(project if project.exists() else tmp_path, text)
        elif language == "text":
            assert output == text
        else:
            first, _, body = text.partition("\n")
            file = project / first.removeprefix("# ").partition(",")[0]
            file.write_text((file.read_text() if "at the end" in first else "") + body)

    assert [language for language, _ in blocks].count("text") == 4
