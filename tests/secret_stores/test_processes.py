"""Processes that share a store, and processes that fork."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cloudrun_jobs.emulator import Emulator

UPDATER = Path(__file__).with_name("updater.py")
ROOT = Path(__file__).parents[2]
FORKING = """
import os, sys
from django.conf import settings
settings.configure(CLOUDRUN_JOBS={"ENVIRONMENT": "local", "PROJECT": "acme"})
from cloudrun_jobs import secrets
from cloudrun_jobs.secrets import cache, clients

secrets.update("token", "two", expected=1)
with cache._lock, clients._lock:  # As a thread might, at the fork.
    children = [os.fork()]
    if not children[0]:
        os._exit(0 if secrets.read("token") == "two" and secrets.latest_version("token") == 2 else 1)
print(os.waitstatus_to_exitcode(os.waitpid(children[0], 0)[1]), secrets.latest_version("token"))
sys.stdout.flush()
os._exit(0)
"""
FORKED_WHILE_LOCKED = """
import os, sys
from pathlib import Path
from django.conf import settings
settings.configure(CLOUDRUN_JOBS={"ENVIRONMENT": "local", "SECRETS": sys.argv[1]})
from cloudrun_jobs import secrets
from cloudrun_jobs.secrets import local

local.LOCK_TIMEOUT_SECONDS = 0.1
ends, end = os.pipe()
with local.FileStore(Path(sys.argv[1])).exclusive():  # As a thread might, at the fork.
    if not os.fork():
        os.close(end)
        os.read(ends, 1)  # Until the parent has ended.
        os._exit(0)
print(secrets.update("token", "one", create=True))
"""


@pytest.mark.faults
def test_processes_update_a_file(tmp_path):
    """Each version number belongs to one process, and no update is lost."""
    path = tmp_path / "secrets.json"
    path.write_text('{"token": "-"}')
    command = [sys.executable, str(UPDATER), str(path)]
    processes = [
        subprocess.Popen([*command, label, "15"], stdout=subprocess.PIPE, text=True, cwd=ROOT) for label in "abcd"
    ]
    written = [json.loads(process.communicate(timeout=60)[0]) for process in processes]
    versions = [version["value"] for version in json.loads(path.read_text())["token"]]

    assert sorted(int(number) for numbers in written for number in numbers) == list(range(2, 62))
    owners = {int(number): label for numbers in written for number, label in numbers.items()}
    assert [version[-1] for version in versions] == ["-", *(owners[number] for number in range(2, 62))]
    assert all(later.startswith(earlier[-20:]) for earlier, later in itertools.pairwise(versions))


@pytest.mark.faults
def test_forked_process_reads(tmp_path):
    """A forked process has a client and a cache of its own, and the parent keeps its own."""
    proxy = dict.fromkeys(("http_proxy", "https_proxy"), "http://127.0.0.1:1")  # The emulator is on this machine.
    with Emulator(secrets={"token": "one"}) as emulator:
        done = subprocess.run(
            [sys.executable, "-c", FORKING],
            capture_output=True,
            text=True,
            cwd=ROOT,
            timeout=60,
            env={**os.environ, **proxy, "CLOUDRUN_EMULATOR_HOST": emulator.grpc, "PYTHONWARNINGS": "ignore"},
        )

    assert done.returncode == 0, done.stderr
    assert done.stdout == "0 2\n"


@pytest.mark.faults
def test_forked_process_does_not_keep_the_lock(tmp_path):
    """A child that was forked during an update does not block later updates of its parent."""
    command = [sys.executable, "-c", FORKED_WHILE_LOCKED, str(tmp_path / "secrets.json")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=60)

    assert (done.stdout, done.returncode) == ("1\n", 0), done.stderr
