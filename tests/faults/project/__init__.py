"""A project whose processes are killed at the step that a test names."""

from __future__ import annotations
