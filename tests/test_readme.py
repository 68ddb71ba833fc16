"""The README's commands print what it shows, it is short, and the links of all pages resolve."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pytest_django import Settings

from cloudrun_jobs import conf
from cloudrun_jobs.checks import check_deployment

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
PAGES = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((?!https?:)([^)#\s]*)(?:#([^)\s]+))?\)")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
WHEN = re.compile(r"next .*|\d{4}-\d\d-\d\d \d\d:\d\d:\d\d")
MAX_PROSE = 900  # Words.


def test_the_demo_prints_what_the_readme_shows(tmp_path: Path) -> None:
    """On an empty database, the demo prints each line shown, in that order."""
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


def prose(page: Path) -> str:
    """Return the page without its code blocks."""
    return CODE.sub("", page.read_text())


def anchors(page: Path) -> set[str]:
    """Return the anchors of the page's headings, as GitHub derives them."""
    headings = HEADING.findall(prose(page))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_readme_is_short() -> None:
    """A reader with five minutes gets through it: code blocks are not counted."""
    words = [word for word in prose(README).split() if re.search(r"\w", word)]

    assert len(words) <= MAX_PROSE


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_relative_links_resolve(page: Path) -> None:
    """Each relative link leads to a file, and its anchor to a heading in it."""
    links = [(page.parent / path if path else page, anchor) for path, anchor in LINK.findall(prose(page))]

    assert [target for target, _ in links if not target.exists()] == []
    assert [(target, anchor) for target, anchor in links if anchor and anchor not in anchors(target)] == []


def blocks(title: str) -> list[tuple[str, str]]:
    """The code blocks of the section, with their languages."""
    section = README.read_text().partition(f"\n## {title}\n")[2].partition("\n## ")[0]
    return BLOCK.findall(section)


def run(directory: Path, script: str) -> str:
    """Run shell lines in the directory; the package itself is already installed."""
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
    """Run the emulator on free ports and yield its gRPC address."""
    argv = [sys.executable, "manage.py", "cloudrun_emulator", "--port=0", "--grpc-port=0", "--json"]
    with subprocess.Popen(argv, cwd=project, env=environment(), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield json.loads(process.stdout.readline())["grpc"]
        finally:
            process.terminate()


@pytest.mark.parametrize(("variable", "environment"), [(None, "local"), ("production", "production")])
def test_the_settings_of_the_readme_fit_every_environment(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, variable: str | None, environment: str
) -> None:
    """A variable names the environment, so that tests stay inline; nothing is missing in production."""
    monkeypatch.setattr(os, "environ", {"CLOUDRUN_JOBS_ENVIRONMENT": variable} if variable else {})
    values: dict[str, Any] = {}
    exec(next(text for _, text in blocks("Deploy to Google Cloud")), values)
    settings.CLOUDRUN_JOBS = values["CLOUDRUN_JOBS"]
    found = check_deployment(None)

    assert conf.load().environment == environment
    assert [message.id for message in found] == (["cloudrun_jobs.W004"] if environment == "local" else [])


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Build the project of the quickstart: the first line of a file is its path, each output is as shown."""
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
    """After the quickstart, the commands of the emulator section print what the README shows."""
    shells = [text for language, text in blocks("Run it on the emulator") if language == "sh"]
    shown = [text for language, text in blocks("Run it on the emulator") if language == "text"]
    with emulator(project) as address:
        first, *scripts = (shell.replace("127.0.0.1:8491", address) for shell in shells[1:])
        exports = "".join(line for line in first.splitlines(keepends=True) if line.startswith("export "))
        outputs = [run(project, first), *(run(project, exports + script) for script in scripts)]

    assert [WHEN.sub("…", output) for output in outputs] == [WHEN.sub("…", text) for text in shown]
    assert [language for language, _ in blocks("Quickstart")].count("text") == 4
