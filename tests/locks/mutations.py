"""Removes the rules of the locks one by one and sees a test fail each time: `python -m tests.locks.mutations`.

Against each copy run the contract and the model; with words, only the rules that have one of them are removed.
"""

from __future__ import annotations

import sys

from tests.mutation import Mutation, main

TESTS = ("locks/test_contract", "locks/test_model", "locks/test_manager")
REDIS, LOCAL = "locks/redis.py", "locks/local.py"
STATEMENTS, DATABASE, LEASE = "locks/database/dialects.py", "locks/database/__init__.py", "locks/lease.py"

# The rule, the backend whose tests run, the file, the words to replace, the words instead.
RULES = (
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
        "if time.monotonic() >= self.deadline:\n            self.mark_lost(",
        "if False:\n            self.mark_lost(",
    ),
    ("a loss that the server tells is a loss", "local", LEASE, "if not confirmed:", "if False:"),
    ("leases are renewed", "local", LEASE, "confirmed = self.claim.renew()", "confirmed = True"),
)

MUTATIONS = [
    Mutation(rule=rule, only=kind, path=path, old=old, new=new, tests=TESTS)
    for rule, kind, path, old, new in RULES
]

if __name__ == "__main__":
    sys.exit(main(MUTATIONS, sys.argv[1:]))
