"""What every keeper of locks must do, whatever it keeps them in."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from datetime import timedelta
from uuid import uuid4

import pytest

from cloudrun_jobs.locks import names
from cloudrun_jobs.locks.base import Grant, LockBackend, Owner
from cloudrun_jobs.locks.names import LockName

TTL = 30.0
SHORT = 0.3


@pytest.fixture
def name() -> LockName:
    return names.lock_name(f"contract {uuid4()}")


def owner(execution: str = "a", index: int = 0, attempt: int = 0) -> Owner:
    return Owner(holder=execution, index=index, attempt=attempt, nonce=uuid4().hex)


def taken(answer: object) -> Grant:
    assert isinstance(answer, Grant), answer
    return answer


def refused_by(answer: object) -> list[str]:
    assert not isinstance(answer, Grant)
    return [holder.holder for holder in answer]


def ended(locks: LockBackend, name: LockName) -> None:
    """Wait until no lease of the lock is live."""
    deadline = time.monotonic() + 10
    while locks.holders(name.key):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_second_holder_is_refused_and_told_who_holds_it(locks, name):
    """With one slot, a second execution gets the first one's name, slot, token and times."""
    grant = taken(locks.acquire(name, 1, owner("a"), TTL))

    (holder,) = locks.acquire(name, 1, owner("b"), TTL)

    assert (holder.holder, holder.label, holder.slot, holder.token) == ("a", name.label, 0, grant.token)
    assert 0 < (holder.until - holder.since).total_seconds() <= TTL + 1


def test_a_lock_is_remembered(locks, name):
    """One that was taken once, held or free; no other."""
    assert locks.exists(name.key) is False

    grant = taken(locks.acquire(name, 1, owner("a"), TTL))
    assert locks.exists(name.key) is True

    locks.release(grant)
    assert locks.exists(name.key) is True


def test_release_frees_the_slot_and_the_token_grows(locks, name):
    """The next holder's token is greater than the last one's."""
    first = taken(locks.acquire(name, 1, owner("a"), TTL))

    assert locks.release(first)

    assert taken(locks.acquire(name, 1, owner("b"), TTL)).token > first.token


def test_a_repeated_request_gets_the_same_answer(locks, name):
    """Whoever lost the answer asks again with the same nonce, and has the same slot and token."""
    asking = owner()
    first = taken(locks.acquire(name, 1, asking, TTL))

    assert locks.acquire(name, 1, asking, TTL) == first


def test_a_repeated_request_finds_its_slot_among_several(locks, name):
    """A free slot with a lower number does not tempt a repeated request away from its own."""
    lower = taken(locks.acquire(name, 3, owner("a"), TTL))
    asking = owner("b")
    first = taken(locks.acquire(name, 3, asking, TTL))
    locks.release(lower)

    assert locks.acquire(name, 3, asking, TTL) == first


def test_a_retry_takes_over_from_its_predecessor(locks, name):
    """A later attempt of the same task does not wait for the lease of the attempt that died."""
    first = taken(locks.acquire(name, 1, owner("a", attempt=0), TTL))

    second = taken(locks.acquire(name, 1, owner("a", attempt=1), TTL))

    assert second.token > first.token
    assert not locks.renew(first, TTL)
    assert not locks.release(first)
    assert refused_by(locks.acquire(name, 1, owner("b"), TTL)) == ["a"]


def test_a_retry_takes_its_predecessors_slot_rather_than_a_free_one(locks, name):
    """Otherwise the dead attempt's slot would stay taken until its lease ends."""
    taken(locks.acquire(name, 2, owner("b"), TTL))
    first = taken(locks.acquire(name, 2, owner("a"), TTL))
    assert locks.force_release(name.key)
    taken(locks.acquire(name, 2, owner("b"), TTL))
    first = taken(locks.acquire(name, 3, owner("a"), TTL))

    assert taken(locks.acquire(name, 3, owner("a", attempt=1), TTL)).slot == first.slot


@pytest.mark.parametrize(
    "other", [owner("a", attempt=1), owner("a", attempt=0), owner("a", index=1, attempt=2), owner("b", attempt=2)]
)
def test_nobody_else_takes_over(locks, name, other):
    """Not an earlier attempt, an equal one, another task, another execution."""
    taken(locks.acquire(name, 1, owner("a", attempt=1), TTL))

    assert refused_by(locks.acquire(name, 1, replace(other, nonce=uuid4().hex), TTL)) == ["a"]


def test_a_lease_ends_by_itself(locks, name):
    """When nobody renews, the next execution gets the lock after the lease, and not before."""
    first = taken(locks.acquire(name, 1, owner("a"), TTL))
    assert refused_by(locks.acquire(name, 1, owner("b"), TTL)) == ["a"]

    locks.renew(first, SHORT)
    ended(locks, name)

    assert not locks.renew(first, TTL)
    assert taken(locks.acquire(name, 1, owner("b"), TTL)).token > first.token
    assert not locks.release(first)


def test_renewal_extends_the_lease(locks, name):
    """A lease that is renewed outlives the time it was first given for."""
    grant = taken(locks.acquire(name, 1, owner("a"), TTL / 3))
    short = locks.holders(name.key)[0].until

    assert locks.renew(grant, TTL)

    assert (locks.holders(name.key)[0].until - short).total_seconds() > TTL / 2


@pytest.mark.parametrize("change", [{"nonce": "another"}, {"token": 1}])
def test_a_grant_of_somebody_else_does_nothing(locks, name, change):
    """Neither a foreign nonce nor an old token renews or releases."""
    grant = taken(locks.acquire(name, 1, owner("a"), TTL))

    assert not locks.renew(replace(grant, **change), TTL)
    assert not locks.release(replace(grant, **change))
    assert locks.renew(grant, TTL)


def test_as_many_holders_as_slots(locks, name):
    """Three slots are given to three, each its own, and the fourth is told of all of them."""
    grants = [taken(locks.acquire(name, 3, owner(who), TTL)) for who in "abc"]

    assert {grant.slot for grant in grants} == {0, 1, 2}
    assert refused_by(locks.acquire(name, 3, owner("d"), TTL)) == ["a", "b", "c"]

    locks.release(grants[1])

    assert taken(locks.acquire(name, 3, owner("d"), TTL)).slot == 1


def test_tasks_settle_their_executions_slot(locks, name):
    """The slot is free with the last task's end; telling an end twice counts once."""
    grant = taken(locks.acquire(name, 1, owner("a"), TTL))
    locks.complete_task(grant, 0, 2)
    locks.complete_task(grant, 0, 2)
    assert refused_by(locks.acquire(name, 1, owner("b"), TTL)) == ["a"]

    locks.complete_task(grant, 1, 2)

    taken(locks.acquire(name, 1, owner("b"), TTL))


def test_freeing_ends_the_leases_of_a_lock_and_of_the_tasks_below_it(locks, name):
    """What a person frees is free, and the old holder cannot renew it."""
    grant = taken(locks.acquire(name, 2, owner("a"), TTL))
    below = taken(locks.acquire(name.part("0/3", "[3]"), 1, owner("a", index=3), TTL))

    assert [holder.holder for holder in locks.force_release(name.key)] == ["a", "a"]

    assert not locks.renew(grant, TTL)
    assert not locks.renew(below, TTL)
    assert locks.holders(name.key) == []


def test_pruning_forgets_only_what_nobody_holds(locks, name):
    """Live leases stay, and so does what ended a moment ago."""
    ended_now = taken(locks.acquire(name, 3, owner("a"), TTL))
    live = taken(locks.acquire(name, 3, owner("b"), TTL))
    assert locks.release(ended_now)

    locks.prune(timedelta(days=1))
    assert rows_of(locks, name) in ({0, 1}, None)

    locks.prune(timedelta(0))
    assert rows_of(locks, name) in ({1}, None)
    assert locks.renew(live, TTL)


def test_tokens_grow_beyond_pruning(locks, name):
    """Who takes a lock that was forgotten gets a greater token than its last holder; that one's proves nothing."""
    first = taken(locks.acquire(name, 1, owner("a"), TTL))
    locks.release(first)

    locks.prune(timedelta(0))
    second = taken(locks.acquire(name, 1, owner("b"), TTL))

    assert second.token > first.token
    assert not locks.renew(first, TTL)
    assert not locks.release(first)


def test_pruning_leaves_a_token_that_is_ahead_of_the_clock(locks, name):
    """After the server's clock was set back, a slot made anew would begin with a smaller token."""
    first = taken(locks.acquire(name, 1, owner("a"), TTL))
    if not hasattr(locks, "dialect"):
        pytest.skip("It forgets by itself.")
    ahead = first.token + 10**9
    for table in ("lockslot", "locktoken"):
        update = f"UPDATE cloudrun_jobs_{table} SET token = %s WHERE id = %s"
        locks._run(lambda cursor, update=update: cursor.execute(update, [ahead, f"{name.key}:0"]))
    locks.force_release(name.key)

    locks.prune(timedelta(0))

    assert taken(locks.acquire(name, 1, owner("b"), TTL)).token > ahead


def test_pruning_keeps_what_tasks_of_a_running_execution_have_done(locks, name):
    """However long ago that was; and forgets it when the slot has changed hands."""
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


def test_locks_do_not_meet(locks, name):
    """Another name is another lock."""
    taken(locks.acquire(name, 1, owner("a"), TTL))

    taken(locks.acquire(names.lock_name(f"{name.label} "), 1, owner("b"), TTL))


def test_names_of_any_script(locks):
    """What a person named the lock comes back as they wrote it, or escaped."""
    name = names.lock_name(f"夜間バッチ 🔒 \x00 {uuid4()} {'長' * 500}")
    taken(locks.acquire(name, 1, owner("a"), TTL))

    assert locks.holders(name.key)[0].label == name.label


def test_threads_at_one_time(locks, name):
    """Of many threads that ask at once, one wins in each round, and its token is the greatest so far."""
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

    def ask(who: str) -> None:
        barrier.wait(20)
        answers.append(locks.acquire(name, 1, owner(who), TTL))

    running = [threading.Thread(target=ask, args=(str(number),)) for number in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join(20)
    assert len(answers) == threads
    return [answer for answer in answers if isinstance(answer, Grant)]


def test_the_statement_decides_whatever_was_read_before(locks, name, monkeypatch):
    """A database that reads nothing of the first holder still does not give the slot to the second."""
    if not hasattr(locks, "dialect"):
        pytest.skip("It decides in the operation that reads.")
    taken(locks.acquire(name, 1, owner("a"), TTL))
    (held,) = locks._look(name, 1)

    for read in ([], [held._replace(expires_us=0)]):
        monkeypatch.setattr(locks, "_look", lambda *asked, read=read: read)
        assert refused_by(locks.acquire(name, 1, owner("b"), TTL)) == []
