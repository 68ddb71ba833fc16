"""The documentation of findings and of permissions agrees with the code."""

from __future__ import annotations

import re
from pathlib import Path

from cloudrun_jobs.doctor.table import IDS
from tests.doctor.project import CALLER_ROLES

DOCS = Path(__file__).parents[2] / "docs"
FIRST_CELL = re.compile(r"^\| `([\w./]+)` \|", re.MULTILINE)


def test_every_finding_is_documented() -> None:
    """The reference has one row for each id, and no other."""
    assert sorted(FIRST_CELL.findall((DOCS / "reference" / "findings.md").read_text())) == sorted(IDS)


def test_documented_roles_are_enough() -> None:
    """The tests run `doctor` with the roles that the page lists."""
    permissions = (DOCS / "doctor.md").read_text().partition("## Permissions")[2]

    assert sorted(FIRST_CELL.findall(permissions)) == sorted(CALLER_ROLES)
