"""Removes rules of the package one by one, each in a copy of it, and sees a test fail each time."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
COPIED = ("cloudrun_jobs", "tests", "example_project")
LONGEST = 300  # Seconds; tests that hang without the rule have noticed, too.


@dataclass(frozen=True, kw_only=True)
class Mutation:
    """A rule, and how the package looks without it."""

    rule: str
    path: str  # In the package.
    old: str
    new: str
    tests: Sequence[str]  # The files that should notice, in tests/.
    only: str = ""  # What pytest's -k takes: a kind of server, or the names of tests.

    def apply(self, package: Path) -> None:
        """Remove the rule from this copy of the package."""
        file = package / self.path
        file.write_text(file.read_text().replace(self.old, self.new))

    def noticed_by(self) -> str:
        """Return the test that fails without the rule; nothing if all pass."""
        with tempfile.TemporaryDirectory() as home:
            copy = Path(home)
            for name in COPIED:
                shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
            shutil.copy(ROOT / "pyproject.toml", copy)
            self.apply(copy / "cloudrun_jobs")
            return self._failure(copy)

    def _failure(self, copy: Path) -> str:
        files = [f"tests/{name}.py" for name in self.tests]
        options = ["-q", "-x", "-p", "no:cacheprovider", "-m", "", "-k", self.only]  # Also the tests of faults.
        command = [sys.executable, "-m", "pytest", *options, *files]
        try:
            done = subprocess.run(command, cwd=copy, capture_output=True, text=True, check=False, timeout=LONGEST)
        except subprocess.TimeoutExpired:
            return "one that hangs"
        assert done.returncode in {0, 1}, done.stdout  # Not for want of tests.
        failed = re.search(r"^(?:FAILED|ERROR) \S*::(\w+)", done.stdout, re.MULTILINE)
        return failed[1] if failed else ""


def main(mutations: Iterable[Mutation], words: Collection[str]) -> int:
    """Try those whose rule has one of the words, or all; the status is 1 if one makes no test fail."""
    survivors = 0
    chosen = [one for one in mutations if not words or any(word in one.rule for word in words)]
    if not chosen:
        sys.exit(f"No rule has one of the words {', '.join(words)}.")
    for mutation in chosen:
        test = mutation.noticed_by()
        survivors += not test
        print(f"{'caught  ' if test else 'SURVIVED'}  {mutation.only:10.10} {mutation.rule:60} {test}", flush=True)
    return int(bool(survivors))
