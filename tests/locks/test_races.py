"""Many processes at once, and processes with wrong clocks."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from tests.locks.conftest import path_and_options, workers_for
from tests.locks.workers import ROOT, database_settings, until

pytestmark = pytest.mark.faults

PROCESSES = 32
ROUNDS = 200 if os.environ.get("HYPOTHESIS_PROFILE") == "thorough" else 25


@pytest.mark.parametrize("kind", ["redis", "valkey", "postgres", "pgbouncer", "mariadb", "sqlite"])
def test_one_process_wins_each_round(kind, request):
    """Of 32 processes one acquires the lock in each round, the others get its token, and tokens only grow."""
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
    for answers in rounds:
        (winner,) = [one for one in answers if one["won"]]
        assert all(one["holders"] == [winner["token"]] for one in answers if not one["won"])
        tokens.setdefault(winner["name"], []).append(winner["token"])
    assert all(found == sorted(set(found)) for found in tokens.values())


@pytest.mark.parametrize("kind", ["redis", "postgres"])
def test_wrong_local_clocks_change_nothing(kind, request, tmp_path):
    """A holder an hour ahead and a contender an hour behind: only the server's clock counts."""
    workers = workers_for(kind, request, tmp_path, lease=2)
    own_option = f"--shop={request.node.name}"
    try:
        first = workers.start("work", own_option, ahead=3600)
        until(lambda: workers.history())
        duplicate = workers.start_duplicate("work", own_option, ahead=-3600)
        status, output = duplicate.wait()
        assert status == 0, output
        assert duplicate.entry("begin") is None
        first.kill()
        retry = workers.start("work", own_option, "--seconds=0", attempt=1, ahead=-3600)
        status, output = retry.wait()
        assert status == 0, output
        assert {entry["attempt"] for entry in workers.history()} == {"0", "1"}
        workers.check_history()
    finally:
        workers.stop()
