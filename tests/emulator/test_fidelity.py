"""Check the tables in docs/emulator-fidelity.md against the tests that they name."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

HERE = Path(__file__).parent
TABLE = HERE.parents[1] / "docs" / "emulator-fidelity.md"
ROW = re.compile(r"^\| (?P<behaviour>.+) \| (?P<source>\S+) \| `(?P<file>test_\w+\.py)::(?P<test>test_\w+)` \|$")
LINES = [
    line for line in TABLE.read_text().splitlines() if line.startswith("| ") and not line.startswith("| behaviour")
]


@pytest.mark.parametrize("line", LINES)
def test_row_has_source_and_test(line):
    """Every row has a known source and an existing test."""
    row = ROW.match(line)

    assert row is not None
    assert row["source"] in {"documented", "observed", "inferred", "unknown"}
    assert f"def {row['test']}(" in (HERE / row["file"]).read_text()


def test_every_source_is_explained():
    """The page explains the four sources."""
    text = TABLE.read_text()

    for source in ("documented", "observed", "inferred", "unknown"):
        assert f"- **{source}**: " in text
