"""Many processes at one moment, and processes whose clocks are wrong."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from tests.locks.conftest import journal_for, path_and_options
from tests.locks.workers import ROOT, database_settings, until

pytestmark = pytest.mark.faults

PROCESSES = 32
ROUNDS = 200 if os.environ.get("HYPOTHESIS_PROFILE") == "thorough" else 25


@pytest.mark.parametrize("kind", ["redis", "valkey", "postgres", "pgbouncer", "mariadb", "sqlite"])
def test_one_wins_each_round(kind, request):
    """Of 32 processes exactly one wins in each round, all others are told whose it is, and tokens only grow."""
    path, options = path_and_options(kind, request)
    database = {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}
    if "using" in options:
        database = database_settings(options.pop("using"))
    given = {"DATABASES": {"default": database}, "LOCKS": {"BACKEND": path, "OPTIONS": options}}
    environment = {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "tests.locks.project.settings",
        "WORKER_SETTINGS": json.dumps(given),
    }
    command = [sys.executable, "-m", "tests.locks.race", str(PROCESSES), str(ROUNDS)]
    done = subprocess.run(
        command, check=False, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    rounds = json.loads(done.stdout)

    tokens: dict[str, list[int]] = {}
    for told in rounds:
        (winner,) = [one for one in told if one["won"]]
        assert all(one["holders"] == [winner["token"]] for one in told if not one["won"])
        tokens.setdefault(winner["name"], []).append(winner["token"])
    assert all(found == sorted(set(found)) for found in tokens.values())


@pytest.mark.parametrize("kind", ["redis", "postgres"])
def test_a_wrong_clock_changes_nothing(kind, request, tmp_path):
    """A holder an hour ahead and a contender an hour behind: only the server's clock counts."""
    journal = journal_for(kind, request, tmp_path, lease=2)
    shop = f"--shop={request.node.name}"
    try:
        first = journal.start("work", shop, ahead=3600)
        until(lambda: journal.entries())
        duplicate = journal.start_another("work", shop, ahead=-3600)
        status, words = duplicate.ends()
        assert status == 0, words
        assert duplicate.saw("begin") is None
        first.kill()
        retry = journal.start("work", shop, "--seconds=0", attempt=1, ahead=-3600)
        status, words = retry.ends()
        assert status == 0, words
        assert {entry["attempt"] for entry in journal.entries()} == {"0", "1"}
        journal.check()
    finally:
        journal.stop()
