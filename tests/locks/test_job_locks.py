"""Which locks are those of a job, and the release of one of their slots."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from cloudrun_jobs.locks import current, names
from cloudrun_jobs.locks.base import Grant, Owner
from cloudrun_jobs.locks.jobs import holders_by_job, release
from cloudrun_jobs.locks.names import LockName


def hold(name: LockName, holder: str = "a", slots: int = 1) -> Grant:
    grant = current().acquire(name, slots, Owner(holder=holder, nonce=holder), 60)
    assert isinstance(grant, Grant)
    return grant


OWN: dict[str, Callable[[], LockName]] = {
    "the job's": lambda: names.for_job("walk"),
    "of arguments": lambda: names.for_arguments("walk", {"partner": 7}),
    "of a task": lambda: names.for_job("walk").part("3", "[3]"),
    "of arguments and a task": lambda: names.for_arguments("walk", 7).part("3", "[3]"),
}
OTHERS: dict[str, Callable[[], LockName]] = {
    "of another job": lambda: names.for_job("walk_on"),
    "of its arguments": lambda: names.for_arguments("walk_on", 7),
    "a lock manager's": lambda: names.lock_name("walk"),
    "a lock manager's with a number": lambda: names.lock_name("walk#00000000"),
}


@pytest.mark.parametrize("name", OWN.values(), ids=OWN)
def test_lock_of_the_job(name: Callable[[], LockName]) -> None:
    grant = hold(name())

    found = holders_by_job(["walk", "other"])
    assert [(command, [each.token for each in holders]) for command, holders in found.items()] == [
        ("walk", [grant.token])
    ]


@pytest.mark.parametrize("name", OTHERS.values(), ids=OTHERS)
def test_lock_of_something_else(name: Callable[[], LockName]) -> None:
    """Also one that has the name of the job."""
    hold(name())

    assert not holders_by_job(["walk"])


def test_tasks_below_a_held_slot_are_not_listed() -> None:
    """The slot of their execution is. A task without it is listed: it would be hidden otherwise."""
    name = names.for_job("walk")
    shared = hold(name, slots=2)
    hold(name.part("0/3", "[3]"), "task")
    alone = hold(name.part("1/3", "[3]"), "other")

    assert [each.token for each in holders_by_job(["walk"])["walk"]] == [shared.token, alone.token]


def test_release_ends_a_slot_and_its_tasks() -> None:
    """Those of another slot stay."""
    name = names.for_job("walk")
    grants = [
        hold(name, "a", 2),
        hold(name.part("0/3", "[3]"), "a"),
        hold(name, "b", 2),
        hold(name.part("1/3", "[3]"), "b"),
    ]

    assert release(grants[0].lock, grants[0].slot, grants[0].token)

    assert [current().renew(grant, 60) for grant in grants] == [False, False, True, True]


def test_release_of_a_stale_token_ends_nothing() -> None:
    """Neither the slot of the next holder, nor its tasks."""
    name = names.for_job("walk")
    stale = hold(name)
    current().release(stale)
    grants = [hold(name, "b"), hold(name.part("0/3", "[3]"), "b")]

    assert not release(stale.lock, stale.slot, stale.token)

    assert [current().renew(grant, 60) for grant in grants] == [True, True]
