"""Rows of text in columns."""

from __future__ import annotations

from collections.abc import Sequence


def table(*rows: Sequence[str]) -> str:
    """Return the rows with each column, but for the last, as wide as its widest cell."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    widths[-1] = 0
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)
