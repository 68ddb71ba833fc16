"""Measure what the HTTP API costs `manage.py` in a project that does not include its URLs, and in one that does.

The baseline is a copy of the package without the HTTP API. With valgrind, instructions are counted, for other load
does not change their number; otherwise the time is measured.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.measuring import interleaved, timed
from benchmarks.startup import MODELS, make_project

ROOT = Path(__file__).resolve().parent.parent
ROUNDS, COUNTS = 25, 1
VALGRIND = ["valgrind", "--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null"]
COMMAND = """
from {module} import {base}
class Command({base}):
    def {method}(self, *args, **options):
        pass
"""
INCLUDED = """
from django.urls import include, path
urlpatterns = [path("cloudrun_jobs/", include("cloudrun_jobs.urls"))]
"""


def main() -> None:
    with TemporaryDirectory() as directory:
        without = Path(directory, "without")
        ignored = shutil.ignore_patterns("http", "urls.py", "__pycache__")
        shutil.copytree(ROOT / "cloudrun_jobs", without / "cloudrun_jobs", ignore=ignored)
        own = _project(Path(directory, "own"), "urlpatterns = []")
        included = _project(Path(directory, "included"), INCLUDED)
        measure, rounds, unit = (
            (_count, COUNTS, "M instructions") if shutil.which("valgrind") else (_time, ROUNDS, "ms")
        )
        sides: dict[str, Callable[[], float]] = {
            "without the HTTP API": partial(measure, own, without),
            "its URLs not included": partial(measure, own, ROOT),
            "its URLs included": partial(measure, included, ROOT),
        }
        interleaved(sides, 1)  # Writes bytecode.
        medians = interleaved(sides, rounds)
    print("\n`manage.py noop` of a project with cloudrun_jobs (ratio without its URLs at most 1.01)")
    base = medians[next(iter(sides))]
    for name, value in medians.items():
        print(f"  {value:9.1f} {unit}  {value / base:6.3f}  {name}")


def _project(directory: Path, urls: str) -> Path:
    apps = [*MODELS, "cloudrun_jobs", "app"]
    manage = make_project(directory, apps, "django.core.management.base", "BaseCommand", "handle", COMMAND)
    (directory / "urls.py").write_text(urls)
    with (directory / "settings.py").open("a") as settings:
        settings.write('ROOT_URLCONF = "urls"\n')
    return manage


def _time(manage: Path, package: Path) -> float:
    return timed(lambda: _run([], manage, package)) * 1000


def _count(manage: Path, package: Path) -> float:
    """Return the number of instructions, in millions."""
    found = re.search(r"I +refs: +([0-9,]+)", _run(VALGRIND, manage, package))
    assert found is not None
    return int(found[1].replace(",", "")) / 1e6


def _run(prefix: Sequence[str], manage: Path, package: Path) -> str:
    """Run the command with the package at this path; return what it prints to stderr."""
    # Random hashes would change the number of instructions.
    environment = {**os.environ, "PYTHONPATH": str(package), "PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": ""}
    command = [*prefix, sys.executable, str(manage), "noop"]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stderr
