"""Remove the rules of locks one by one, and check that a test fails: `python -m tests.locks.mutations`.

The contract and the model run against each copy. Arguments select the rules that contain one of them.
"""

from __future__ import annotations

import sys

from tests.mutation import Mutation, main

TESTS = ("locks/test_contract", "locks/test_model", "locks/test_manager")
BASE, REDIS, LOCAL = "locks/base.py", "locks/redis.py", "locks/local.py"
STATEMENTS, DATABASE, KEEPER = "locks/database/dialects.py", "locks/database/__init__.py", "locks/keeper.py"

# The rule, the backend whose tests run, the file, the text to replace and its replacement.
RULES = (
    (
        "a live lease is not granted again",
        "redis",
        REDIS,
        "local i = takeover or free",
        "local i = takeover or free or 2",
    ),
    ("a repeated request gets its grant", "redis", REDIS, "elseif lease[1] == ARGV[6] then", "elseif false then"),
    ("a later attempt takes over", "redis", REDIS, "takeover = takeover or i", "takeover = nil"),
    ("an earlier attempt does not", "redis", REDIS, "tonumber(lease[5]) < tonumber(ARGV[5])", "true"),
    ("another task does not", "redis", REDIS, "and lease[4] == ARGV[4] ", ""),
    ("only the holder renews and releases", "redis", REDIS, "lease[1] ~= ARGV[1] or lease[2] ~= ARGV[2]", "false"),
    ("an old token does not", "redis", REDIS, " or lease[2] ~= ARGV[2] then return 0", " then return 0"),
    ("tokens grow", "redis", REDIS, "or 0) + 1, now))", "or 0), 0))"),
    ("a repeated release is known", "redis", REDIS, "if receipt == ARGV[3] then", "if false then"),
    ("only an execution's own locks are freed", "redis", REDIS, "== ARGV[1] then released", "then released"),
    ("a repeated release is known", "sqlite", DATABASE, "grant.receipt in row[0]", "False"),
    ("only its own locks are freed", "mariadb", DATABASE, "row.live and row.owner == holder", "row.live"),
    (
        "a live lease is not granted again",
        "sqlite",
        DATABASE,
        "{row.slot: row.held_by() for row in rows if row.live}, slots",
        "{}, slots",
    ),
    ("... in the statement too", "sqlite", STATEMENTS, '"({SLOTS}.expires_us <= {{now}} OR "', '"(1 = 1 OR "'),
    ("a repeated request gets its grant", "sqlite", DATABASE, "row.nonce == owner.nonce", "False"),
    ("a later attempt takes over", "sqlite", BASE, "if owner.supersedes(other)", "if False"),
    ("only the holder renews and releases", "sqlite", STATEMENTS, "AND nonce = %(nonce)s ", ""),
    ("an ended lease is not renewed", "sqlite", STATEMENTS, ' AND expires_us > {{now}}"', '"'),
    ("an old token does not renew", "sqlite", STATEMENTS, " AND token = %(token)s", ""),
    ("tokens grow", "sqlite", STATEMENTS, "max({SLOTS}.token + 1, excluded.token)", "{SLOTS}.token"),
    (
        "a live lease is not granted again",
        "postgres",
        STATEMENTS,
        '"({SLOTS}.expires_us <= {{now}} OR "',
        '"(1 = 1 OR "',
    ),
    ("a repeated request gets its grant", "postgres", DATABASE, "row.nonce == owner.nonce", "False"),
    (
        "pruning keeps a token that is ahead",
        "postgres",
        STATEMENTS,
        " AND {SLOTS}.token < {{now}} - %(age)s",
        "",
    ),
    ("pruning keeps held locks", "postgres", STATEMENTS, "{SLOTS}.expires_us < {{now}} - %(age)s AND ", ""),
    ("pruning keeps completed tasks", "postgres", STATEMENTS, "WHERE NOT EXISTS ", "WHERE TRUE OR NOT EXISTS "),
    ("a live lease is not granted again", "local", BASE, "if slot not in live)", ")"),
    ("a later attempt takes over", "local", BASE, "self.attempt > other.attempt", "False"),
    ("an earlier attempt does not", "local", BASE, "and self.attempt > other.attempt", ""),
    (
        "only the holder renews and releases",
        "local",
        LOCAL,
        "(leased.owner.nonce, leased.token) == (grant.nonce, grant.token)",
        "True",
    ),
    (
        "a lease expires by its holder's clock",
        "local",
        KEEPER,
        "if time.monotonic() >= self.deadline:\n            self.mark_lost(",
        "if False:\n            self.mark_lost(",
    ),
    ("a refused renewal loses the lease", "local", KEEPER, "if not confirmed:", "if False:"),
    ("leases are renewed", "local", KEEPER, "confirmed = self.request.renew()", "confirmed = True"),
)

MUTATIONS = [
    Mutation(rule=rule, only=kind, path=path, old=old, new=new, tests=TESTS)
    for rule, kind, path, old, new in RULES
]

if __name__ == "__main__":
    sys.exit(main(MUTATIONS, sys.argv[1:]))
