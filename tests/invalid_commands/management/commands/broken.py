"""A command that cannot be imported."""

from __future__ import annotations

raise RuntimeError("no library for this")
