"""How a rule of the records is removed."""

from __future__ import annotations

from tests.mutation import Mutation


def rule(words: str, path: str, old: str, new: str, *tests: str, only: str = "sqlite") -> Mutation:
    """Return a mutation that tests notice which need no more than a file, unless others are named."""
    return Mutation(rule=words, path=path, old=old, new=new, tests=tests, only=only)
