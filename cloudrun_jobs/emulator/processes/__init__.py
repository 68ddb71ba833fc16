"""Run task attempts as local processes, owned by a supervisor process that the spawner controls."""

from __future__ import annotations
