"""A process that is killed at any statement leaves each item written exactly once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from django.db import connections

ROOT = Path(__file__).resolve().parents[2]


BATCHES = {"postgres": 1, "mariadb": 3}  # One size for each database: each takes half a minute.


@pytest.mark.faults
@pytest.mark.parametrize("database", BATCHES, indirect=True)
def test_atomic_items_are_done_exactly_once(database: str) -> None:
    """After SIGKILL before any statement or commit, a retry does the remaining items, and none twice."""
    settings = {key: connections.settings[database].get(key) for key in ("ENGINE", "NAME", "USER", "HOST", "PORT")}
    config = {"database": {key: value for key, value in settings.items() if value}, "batch": BATCHES[database]}
    environment = {**os.environ, "KILLED": json.dumps(config, default=str), "PYTHONPATH": str(ROOT)}
    connections[database].close()
    done = subprocess.run(
        [sys.executable, "-m", "tests.execution.claim_kills"],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    results = [json.loads(line) for line in done.stdout.splitlines()]

    assert done.returncode == 0, done.stderr[-3000:]
    expected = {"effects": {"a": 1, "b": 1}, "failed": [["bad"]], "open": 0}
    assert all({key: result[key] for key in expected} == expected for result in results), results
    assert len(results) > 20
