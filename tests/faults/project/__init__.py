"""A project whose processes die where a test says."""

from __future__ import annotations
