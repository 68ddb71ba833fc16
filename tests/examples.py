"""How many examples a slow search tries, by the profile of Hypothesis."""

from __future__ import annotations

import os

FACTORS = {"few": 0.25, "default": 1, "thorough": 15}


def scaled(count: int) -> int:
    """Return a number of examples, which `count` is in the default profile."""
    return max(1, round(count * FACTORS[os.environ.get("HYPOTHESIS_PROFILE", "default")]))
