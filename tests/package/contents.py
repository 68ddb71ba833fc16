"""Checks that a wheel holds the whole package and nothing else: `python tests/package/contents.py dist/*.whl`.

The package is what git has of it, or would add; tests, the example and caches are no part of it.
"""

from __future__ import annotations

import subprocess
import sys
import tomllib
from collections.abc import Iterator
from email.parser import Parser
from pathlib import Path
from zipfile import ZipFile

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = "cloudrun_jobs"
REQUIRED = {f"{PACKAGE}/__init__.py", f"{PACKAGE}/py.typed", f"{PACKAGE}/migrations/__init__.py"}
METADATA = {"METADATA", "RECORD", "WHEEL", "licenses/LICENSE"}


def in_repository() -> set[str]:
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", PACKAGE]
    listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.splitlines()
    return {name for name in listed if (ROOT / name).exists()}


def faults(wheel: Path) -> Iterator[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    about = f"{project['name'].replace('-', '_')}-{project['version']}"
    expected = in_repository() | REQUIRED | {f"{about}.dist-info/{name}" for name in METADATA}
    with ZipFile(wheel) as archive:
        found = {name for name in archive.namelist() if not name.endswith("/")}
        metadata = Parser().parsestr(archive.read(f"{about}.dist-info/METADATA").decode())
    yield from (f"{name} is missing" for name in sorted(expected - found))
    yield from (f"{name} does not belong into the wheel" for name in sorted(found - expected))
    if wheel.name != f"{about}-py3-none-any.whl":
        yield f"expected a wheel for any Python 3, {about}-py3-none-any.whl"
    if metadata["Version"] != project["version"]:
        yield f"expected version {project['version']}, got {metadata['Version']}"


def main(wheel: Path) -> int:
    found = list(faults(wheel))
    print("\n".join(f"{wheel.name}: {fault}" for fault in found or ["complete, and nothing else"]))
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
