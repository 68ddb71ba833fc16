"""Declare a mutation of the code that keeps run records."""

from __future__ import annotations

from tests.mutation import Mutation


def rule(name: str, path: str, old: str, new: str, *tests: str, only: str = "sqlite") -> Mutation:
    """Return a mutation that the SQLite tests of these modules detect, unless `only` selects others."""
    return Mutation(rule=name, path=path, old=old, new=new, tests=tests, only=only)
