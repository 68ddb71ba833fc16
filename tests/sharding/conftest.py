"""The fixtures of run records: the databases that store them, and a simulated container."""

from __future__ import annotations

from tests.runs.conftest import _records, cloud, container, database

__all__ = ["_records", "cloud", "container", "database"]
