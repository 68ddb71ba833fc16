"""The contract of every lock backend."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest

from cloudrun_jobs.locks import names
from cloudrun_jobs.locks.base import Grant, LockBackend, Owner
from cloudrun_jobs.locks.names import LockName

TTL = 30.0  # Seconds.
SHORT_TTL = 0.3  # Seconds.


@pytest.fixture
def name() -> LockName:
    return names.lock_name(f"contract {uuid4()}")


def owner(execution: str = "a", index: int = 0, attempt: int = 0) -> Owner:
    return Owner(holder=execution, index=index, attempt=attempt, nonce=uuid4().hex)


def taken(answer: object) -> Grant:
    assert isinstance(answer, Grant), answer
    return answer


def take_away(locks: LockBackend, name: LockName) -> None:
    released = [locks.release_slot(each.lock, each.slot, each.token) for each in locks.holders(name.key)]
    assert {*released} == {True}


def refused_by(answer: object) -> list[str]:
    assert not isinstance(answer, Grant)
    return [holder.holder for holder in answer]


def ended(locks: LockBackend, name: LockName) -> None:
    """Wait until no lease of the lock is live."""
    deadline = time.monotonic() + 10
    while locks.holders(name.key):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_second_holder_is_refused_with_the_first_one(locks, name):
    """With one slot, a second execution gets the first one's name, slot, token and times."""
    grant = taken(locks.acquire(name, 1, owner("a"), TTL))

    (holder,) = locks.acquire(name, 1, owner("b"), TTL)

    assert (holder.holder, holder.label, holder.slot, holder.token) == ("a", name.label, 0, grant.token)
    assert 0 < (holder.until - holder.since).total_seconds() <= TTL + 1


def test_exists_is_true_for_acquired_locks(locks, name):
    """`exists()` is True for a held or released lock, and False for one that was never acquired."""
    assert locks.exists(name.key) is False

    grant = taken(locks.acquire(name, 1, owner("a"), TTL))
    assert locks.exists(name.key) is True

    locks.release(grant)
    assert locks.exists(name.key) is True


def test_release_frees_the_slot(locks, name):
    """The next holder's token is greater than the last one's."""
    first = taken(locks.acquire(name, 1, owner("a"), TTL))

    assert locks.release(first)

    assert taken(locks.acquire(name, 1, owner("b"), TTL)).token > first.token


def test_repeated_request_gets_the_same_grant(locks, name):
    """A request with the same nonce gets the same slot and token."""
    requester = owner()
    first = taken(locks.acquire(name, 1, requester, TTL))

    assert locks.acquire(name, 1, requester, TTL) == first


def test_repeated_request_finds_its_slot_among_several(locks, name):
    """A repeated request gets its own slot, not a free one with a lower number."""
    lower = taken(locks.acquire(name, 3, owner("a"), TTL))
    requester = owner("b")
    first = taken(locks.acquire(name, 3, requester, TTL))
    locks.release(lower)

    assert locks.acquire(name, 3, requester, TTL) == first


def test_retry_takes_over_from_the_earlier_attempt(locks, name):
    """A later attempt of the same task does not wait for the lease of the earlier one."""
    first = taken(locks.acquire(name, 1, owner("a", attempt=0), TTL))

    second = taken(locks.acquire(name, 1, owner("a", attempt=1), TTL))

    assert second.token > first.token
    assert not locks.renew(first, TTL)
    assert not locks.release(first)
    assert refused_by(locks.acquire(name, 1, owner("b"), TTL)) == ["a"]


def test_retry_prefers_the_slot_of_the_earlier_attempt(locks, name):
    """Otherwise the earlier attempt's slot would stay held until its lease ends."""
    taken(locks.acquire(name, 2, owner("b"), TTL))
    first = taken(locks.acquire(name, 2, owner("a"), TTL))
    take_away(locks, name)
    taken(locks.acquire(name, 2, owner("b"), TTL))
    first = taken(locks.acquire(name, 3, owner("a"), TTL))

    assert taken(locks.acquire(name, 3, owner("a", attempt=1), TTL)).slot == first.slot


@pytest.mark.parametrize(
    "other", [owner("a", attempt=1), owner("a", attempt=0), owner("a", index=1, attempt=2), owner("b", attempt=2)]
)
def test_other_owners_do_not_take_over(locks, name, other):
    """An earlier attempt, an equal one, another task and another execution are refused."""
    taken(locks.acquire(name, 1, owner("a", attempt=1), TTL))

    assert refused_by(locks.acquire(name, 1, replace(other, nonce=uuid4().hex), TTL)) == ["a"]


def test_lease_expires(locks, name):
    """Without renewal, the next execution acquires the lock after the lease, and not before."""
    first = taken(locks.acquire(name, 1, owner("a"), TTL))
    assert refused_by(locks.acquire(name, 1, owner("b"), TTL)) == ["a"]

    locks.renew(first, SHORT_TTL)
    ended(locks, name)

    assert not locks.renew(first, TTL)
    assert taken(locks.acquire(name, 1, owner("b"), TTL)).token > first.token
    assert not locks.release(first)


def test_renewal_extends_the_lease(locks, name):
    """A renewed lease lasts longer than its first term."""
    grant = taken(locks.acquire(name, 1, owner("a"), TTL / 3))
    short = locks.holders(name.key)[0].until

    assert locks.renew(grant, TTL)

    assert (locks.holders(name.key)[0].until - short).total_seconds() > TTL / 2


def test_release_may_be_repeated(locks, name):
    """After a lost reply the repeated release returns True, also if the slot has had other holders since."""
    grant = taken(locks.acquire(name, 1, owner("a"), TTL))
    assert locks.release(grant)
    assert locks.release(grant)

    for _ in range(3):
        assert locks.release(taken(locks.acquire(name, 1, owner("b"), TTL)))
    other = taken(locks.acquire(name, 1, owner("c"), TTL))

    assert locks.release(grant)
    assert not locks.release(replace(grant, nonce="another"))
    assert locks.renew(other, TTL)


def test_release_of_a_lease_that_was_taken_away(locks, name):
    """The holder learns that it did not release its lease itself."""
    grant = taken(locks.acquire(name, 1, owner("a"), TTL))
    take_away(locks, name)
    second = taken(locks.acquire(name, 1, owner("b"), TTL))
    locks.release_holder(name.key, "b")

    assert not locks.release(grant)
    assert not locks.release(second)


@pytest.mark.parametrize("change", [{"nonce": "another"}, {"token": 1}])
def test_foreign_grant_does_nothing(locks, name, change):
    """Neither another nonce nor an old token renews or releases."""
    grant = taken(locks.acquire(name, 1, owner("a"), TTL))

    assert not locks.renew(replace(grant, **change), TTL)
    assert not locks.release(replace(grant, **change))
    assert locks.renew(grant, TTL)


def test_each_slot_has_one_holder(locks, name):
    """Three slots have three holders, and a fourth request gets all of them."""
    grants = [taken(locks.acquire(name, 3, owner(execution), TTL)) for execution in "abc"]

    assert {grant.slot for grant in grants} == {0, 1, 2}
    assert refused_by(locks.acquire(name, 3, owner("d"), TTL)) == ["a", "b", "c"]

    locks.release(grants[1])

    assert taken(locks.acquire(name, 3, owner("d"), TTL)).slot == 1


def test_last_task_frees_the_slot_of_its_execution(locks, name):
    """A task that completes twice counts once."""
    grant = taken(locks.acquire(name, 1, owner("a"), TTL))
    assert not locks.complete_task(grant, 0, 2)
    assert not locks.complete_task(grant, 0, 2)
    assert refused_by(locks.acquire(name, 1, owner("b"), TTL)) == ["a"]

    assert locks.complete_task(grant, 1, 2)

    other = taken(locks.acquire(name, 1, owner("b"), TTL))
    locks.complete_task(grant, 1, 2)
    assert locks.renew(other, TTL)


def test_release_slot_frees_one_slot(locks, name):
    """The holder of the slot cannot renew it, and that of another slot can; a second release does nothing."""
    grants = [taken(locks.acquire(name, 2, owner(execution), TTL)) for execution in ("a", "b")]
    slot = (name.key, grants[0].slot, grants[0].token)

    assert [locks.release_slot(*slot), locks.release_slot(*slot)] == [True, False]

    assert [locks.renew(grant, TTL) for grant in grants] == [False, True]
    assert taken(locks.acquire(name, 2, owner("c"), TTL)).slot == grants[0].slot


def test_release_slot_leaves_the_next_holder(locks, name):
    """A token names one holder: that of an earlier one, or of another slot, releases nothing."""
    first = taken(locks.acquire(name, 1, owner("a"), TTL))
    locks.release(first)
    second = taken(locks.acquire(name, 1, owner("b"), TTL))

    assert not locks.release_slot(name.key, 0, first.token)
    assert not locks.release_slot(name.key, 1, second.token)
    assert not locks.release_slot(f"{name.key}0", 0, second.token)

    assert locks.renew(second, TTL)


def test_holders_below_a_slot(locks, name):
    """The tasks of an execution hold locks below its slot, and those of another slot are not listed."""
    taken(locks.acquire(name, 2, owner("a"), TTL))
    below = taken(locks.acquire(name.part("0/3", "[3]"), 1, owner("a", index=3), TTL))
    taken(locks.acquire(name.part("1/3", "[3]"), 1, owner("b", index=3), TTL))

    assert [holder.token for holder in locks.holders(f"{name.key}/0/")] == [below.token]


def test_release_holder_frees_what_an_execution_holds(locks, name):
    """All slots of all of its tasks, in all locks with the prefix; its processes can neither renew nor release."""
    second, elsewhere = (names.lock_name(f"{name.label} {part}") for part in ("second", "elsewhere"))
    grants = [
        taken(locks.acquire(name, 3, owner("a", index=0), TTL)),
        taken(locks.acquire(name, 3, owner("a", index=1, attempt=2), TTL)),
        taken(locks.acquire(name.part("0/1", "[1]"), 1, owner("a", index=1), TTL)),
        taken(locks.acquire(second, 1, owner("a"), TTL)),
    ]
    kept = taken(locks.acquire(elsewhere, 1, owner("a"), TTL))
    prefixes = (name.key, second.key)

    assert [locks.release_holder(prefix, "a") for prefix in prefixes] == [3, 1]

    assert [locks.release_holder(prefix, "a") for prefix in prefixes] == [0, 0]
    assert not any(locks.renew(grant, TTL) or locks.release(grant) for grant in grants)
    assert locks.renew(kept, TTL)
    taken(locks.acquire(name, 1, owner("b"), TTL))


@pytest.mark.parametrize("holder", ["b", "A", "a ", "ab", "%", "_", "*", ""])
def test_release_holder_leaves_other_holders(locks, name, holder):
    """A holder is its whole name, and no pattern."""
    grants = [taken(locks.acquire(name, 2, owner(execution), TTL)) for execution in ("a", "c")]

    assert locks.release_holder(name.key, holder) == 0

    assert all(locks.renew(grant, TTL) for grant in grants)


def test_release_holder_leaves_the_next_holder(locks, name):
    """A slot that another execution has taken since is not freed."""
    locks.release(taken(locks.acquire(name, 1, owner("a"), TTL)))
    other = taken(locks.acquire(name, 1, owner("b"), TTL))

    assert locks.release_holder(name.key, "a") == 0

    assert locks.renew(other, TTL)


def test_pruning_keeps_held_and_recent_locks(locks, name):
    """Live leases and recently ended ones stay."""
    recent = taken(locks.acquire(name, 3, owner("a"), TTL))
    live = taken(locks.acquire(name, 3, owner("b"), TTL))
    assert locks.release(recent)

    locks.prune(timedelta(days=1))
    assert rows_of(locks, name) in ({0, 1}, None)

    locks.prune(timedelta(0))
    assert rows_of(locks, name) in ({1}, None)
    assert locks.renew(live, TTL)


def test_tokens_grow_after_pruning(locks, name):
    """The next holder of a pruned lock has a greater token, and the last one cannot renew or release."""
    first = taken(locks.acquire(name, 1, owner("a"), TTL))
    locks.release(first)

    locks.prune(timedelta(0))
    second = taken(locks.acquire(name, 1, owner("b"), TTL))

    assert second.token > first.token
    assert not locks.renew(first, TTL)
    locks.release(first)
    assert locks.renew(second, TTL)


def test_pruning_keeps_a_token_ahead_of_the_clock(locks, name):
    """After the server's clock was set back, a new slot would start with a smaller token."""
    first = taken(locks.acquire(name, 1, owner("a"), TTL))
    if not hasattr(locks, "dialect"):
        pytest.skip("The server expires its locks.")
    ahead = first.token + 10**9
    for table in ("lockslot", "locktoken"):
        update = f"UPDATE cloudrun_jobs_{table} SET token = %s WHERE id = %s"
        locks._run(lambda cursor, update=update: cursor.execute(update, [ahead, f"{name.key}:0"]))
    take_away(locks, name)

    locks.prune(timedelta(0))

    assert taken(locks.acquire(name, 1, owner("b"), TTL)).token > ahead


def test_pruning_keeps_completed_tasks_of_a_running_execution(locks, name):
    """Completed tasks count as long as the execution holds the slot."""
    grant = taken(locks.acquire(name, 1, owner("a"), TTL))
    locks.complete_task(grant, 0, 2)

    locks.prune(timedelta(0))
    locks.complete_task(grant, 1, 2)

    assert not locks.holders(name.key)


def rows_of(locks: LockBackend, name: LockName) -> set[int] | None:
    """Return the slots that a database has rows for."""
    return (
        {row.slot for row in locks._rows("lock_key = %(key)s", key=name.key)}
        if hasattr(locks, "dialect")
        else None
    )


def test_names_are_independent(locks, name):
    """Another name is another lock."""
    taken(locks.acquire(name, 1, owner("a"), TTL))

    taken(locks.acquire(names.lock_name(f"{name.label} "), 1, owner("b"), TTL))


def test_labels_are_unicode(locks):
    """The label of a lock is its name, with unprintable characters escaped."""
    name = names.lock_name(f"夜間バッチ 🔒 \x00 {uuid4()} {'長' * 500}")
    taken(locks.acquire(name, 1, owner("a"), TTL))

    assert locks.holders(name.key)[0].label == name.label


def test_one_of_many_threads_wins(locks, name):
    """Of many threads at once, one acquires the lock in each round, and its token is the greatest so far."""
    tokens: list[int] = []
    for _ in range(5):
        winners = _race(locks, name, threads=6)
        assert len(winners) == 1
        tokens.append(winners[0].token)
        locks.release(winners[0])

    assert tokens == sorted(set(tokens))


def _race(locks: LockBackend, name: LockName, threads: int) -> list[Grant]:
    answers: list[object] = []
    barrier = threading.Barrier(threads)

    def acquire(execution: str) -> None:
        barrier.wait(20)
        answers.append(locks.acquire(name, 1, owner(execution), TTL))

    running = [threading.Thread(target=acquire, args=(str(number),)) for number in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join(20)
    assert len(answers) == threads
    return [answer for answer in answers if isinstance(answer, Grant)]


def test_server_time_is_that_of_the_leases(locks):
    """A server on this machine has this machine's clock; a backend without a server has none."""
    server_time = locks.server_time()

    assert server_time is None or abs(server_time - datetime.now(UTC)) < timedelta(seconds=10)
    assert (server_time is None) is not locks.is_shared


def test_statement_decides_whatever_was_read_before(locks, name, monkeypatch):
    """A database whose read misses the first holder does not grant the slot to a second one."""
    if not hasattr(locks, "dialect"):
        pytest.skip("One operation reads and decides.")
    taken(locks.acquire(name, 1, owner("a"), TTL))
    (held,) = locks._read(name, 1)

    for read in ([], [held._replace(expires_us=0)]):
        monkeypatch.setattr(locks, "_read", lambda *args, read=read: read)
        assert refused_by(locks.acquire(name, 1, owner("b"), TTL)) == []
