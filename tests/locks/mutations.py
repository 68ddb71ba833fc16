"""Removes the rules of the locks one by one and sees a test fail each time: `python -m tests.locks.mutations`.

Each is removed in a copy of the package, against which the contract and the model run.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TESTS = ["tests/locks/test_contract.py", "tests/locks/test_model.py", "tests/locks/test_manager.py"]
REDIS, LOCAL = "locks/redis.py", "locks/local.py"
STATEMENTS, DATABASE, LEASE = "locks/database/statements.py", "locks/database/__init__.py", "locks/lease.py"

# The rule, the backend whose tests run, the file, the words to replace, the words instead.
MUTATIONS = (
    (
        "a live lease keeps others out",
        "redis",
        REDIS,
        "local i = takeover or free",
        "local i = takeover or free or 2",
    ),
    ("a repeated request is known", "redis", REDIS, "elseif lease[1] == ARGV[6] then", "elseif false then"),
    ("a later attempt takes over", "redis", REDIS, "takeover = takeover or i", "takeover = nil"),
    ("an earlier attempt does not", "redis", REDIS, "tonumber(lease[5]) < tonumber(ARGV[5])", "true"),
    ("another task does not", "redis", REDIS, "and lease[4] == ARGV[4] ", ""),
    ("only the holder renews and releases", "redis", REDIS, "lease[1] ~= ARGV[1] or lease[2] ~= ARGV[2]", "false"),
    ("an old token does not", "redis", REDIS, " or lease[2] ~= ARGV[2] then return 0", " then return 0"),
    ("tokens grow", "redis", REDIS, "or 0) + 1, now))", "or 0), 0))"),
    (
        "a live lease keeps others out",
        "sqlite",
        DATABASE,
        "live = {row.slot for row in rows if row.live}",
        "live = set()",
    ),
    ("... in the statement too", "sqlite", STATEMENTS, '"({SLOTS}.expires_us <= {{now}} OR "', '"(1 = 1 OR "'),
    ("a repeated request is known", "sqlite", DATABASE, "row.nonce == owner.nonce", "False"),
    ("a later attempt takes over", "sqlite", DATABASE, "row.live and row.may_pass_to(owner)", "False"),
    ("only the holder renews and releases", "sqlite", STATEMENTS, "AND nonce = %(nonce)s ", ""),
    ("an ended lease is not renewed", "sqlite", STATEMENTS, ' AND expires_us > {{now}}"', '"'),
    ("an old token does not renew", "sqlite", STATEMENTS, " AND token = %(token)s", ""),
    ("tokens grow", "sqlite", STATEMENTS, "max({SLOTS}.token + 1, excluded.token)", "{SLOTS}.token"),
    (
        "a live lease keeps others out",
        "postgres",
        STATEMENTS,
        '"({SLOTS}.expires_us <= {{now}} OR "',
        '"(1 = 1 OR "',
    ),
    ("a repeated request is known", "postgres", DATABASE, "row.nonce == owner.nonce", "False"),
    (
        "pruning keeps a token that is ahead",
        "postgres",
        STATEMENTS,
        " AND {SLOTS}.token < {{now}} - %(age)s",
        "",
    ),
    ("pruning keeps what is held", "postgres", STATEMENTS, "{SLOTS}.expires_us < {{now}} - %(age)s AND ", ""),
    ("pruning keeps what tasks did", "postgres", STATEMENTS, "WHERE NOT EXISTS ", "WHERE TRUE OR NOT EXISTS "),
    ("a live lease keeps others out", "local", LOCAL, "if slot not in live)", ")"),
    ("a later attempt takes over", "local", LOCAL, "owner.attempt > other.attempt", "False"),
    ("an earlier attempt does not", "local", LOCAL, "and owner.attempt > other.attempt", ""),
    (
        "only the holder renews and releases",
        "local",
        LOCAL,
        "(leased.owner.nonce, leased.token) == (grant.nonce, grant.token)",
        "True",
    ),
    (
        "a holder gives up by its own clock",
        "local",
        LEASE,
        "if time.monotonic() >= self.deadline:\n            self.lose(",
        "if False:\n            self.lose(",
    ),
    ("a loss that the server tells is a loss", "local", LEASE, "if not confirmed:", "if False:"),
    ("leases are renewed", "local", LEASE, "confirmed = self.claim.renew()", "confirmed = True"),
)


def survives(rule: str, kind: str, path: str, old: str, new: str) -> bool:
    """Say whether the tests pass without the rule."""
    with tempfile.TemporaryDirectory() as home:
        copy = Path(home)
        for name in ("cloudrun_jobs", "tests", "example_project"):
            shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "pyproject.toml", copy)
        target = copy / "cloudrun_jobs" / path
        text = target.read_text()
        assert old in text, f"{rule}: {path} has no {old!r}"
        target.write_text(text.replace(old, new))
        command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-k", kind, *TESTS]
        return subprocess.run(command, cwd=copy, capture_output=True, check=False, timeout=300).returncode == 0


def main() -> int:
    """Try them all; the status is 1 if one makes no test fail."""
    survivors = []
    for mutation in MUTATIONS:
        alive = survives(*mutation)
        print(f"{'SURVIVED' if alive else 'caught  '}  {mutation[1]:8} {mutation[0]}", flush=True)
        survivors += [mutation] * alive
    return int(bool(survivors))


if __name__ == "__main__":
    sys.exit(main())
