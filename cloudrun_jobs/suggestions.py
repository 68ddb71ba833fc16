"""Suggest a known word for a misspelt one."""

from __future__ import annotations

from collections.abc import Iterable


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return "Did you mean 'this'?" if a known word is close, else the list of known words."""
    names = sorted(known)
    return closest(word, names) or (f"Known: {', '.join(names)}." if names else "")


def closest(word: str, known: Iterable[str]) -> str:
    """Return "Did you mean 'this'?" if a known word is close, else nothing: for sets too long to list."""
    from difflib import get_close_matches  # Takes a millisecond, and only a mistake needs it.

    names = {name.casefold(): name for name in sorted(known)}
    close = get_close_matches(word.casefold(), names, n=1)
    return f"Did you mean {names[close[0]]!r}?" if close else ""
