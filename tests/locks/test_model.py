"""A state machine: any sequence of requests, deaths, retries and lost replies, against a model in a dictionary."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    multiple,
    precondition,
    rule,
    run_state_machine_as_test,
)

from cloudrun_jobs.locks import names
from cloudrun_jobs.locks.base import Grant, LockBackend, Owner
from tests.locks.conftest import KINDS, build

SLOTS = 2
LIVE = 600.0
GONE = 0.001  # A lease that has ended by the time of the next request.


@dataclass
class Slot:
    """What the model knows of a slot: who holds it; None: its lease has ended."""

    owner: Owner | None = None
    token: int = 0


class Model(RuleBasedStateMachine):
    """Executions ask for a lock of two slots, in any order and more than once."""

    backend: LockBackend
    grants: Bundle[tuple[Owner, Grant]] = Bundle("grants")

    @initialize()
    def begin(self) -> None:
        self.name = names.lock_name(f"model {uuid4()}")
        self.slots = [Slot() for _ in range(SLOTS)]

    @rule(
        target=grants,
        execution=st.sampled_from("abc"),
        index=st.integers(0, 1),
        attempt=st.integers(0, 2),
        dies=st.booleans(),
    )
    def ask(self, execution: str, index: int, attempt: int, dies: bool) -> Any:
        """A process asks; `dies` makes its lease end at once."""
        owner = Owner(holder=execution, index=index, attempt=attempt, nonce=uuid4().hex)
        return self._ask(owner, dies=dies)

    @rule(target=grants, known=grants, dies=st.booleans())
    def ask_again(self, known: tuple[Owner, Grant], dies: bool) -> Any:
        """A process asks with a nonce it has asked with before: the reply was lost."""
        return self._ask(known[0], dies=dies)

    def _ask(self, owner: Owner, *, dies: bool) -> Any:
        expected = self._slot_for(owner)
        answer = self.backend.acquire(self.name, SLOTS, owner, GONE if dies else LIVE)
        if expected is None:
            assert not isinstance(answer, Grant)
            assert [holder.slot for holder in answer] == [0, 1]
            return multiple()
        assert isinstance(answer, Grant)
        assert answer.slot == expected
        self._note(owner, answer, dies=dies)
        return owner, answer

    def _slot_for(self, owner: Owner) -> int | None:
        own = [n for n, slot in enumerate(self.slots) if slot.owner == owner]
        older = [n for n, slot in enumerate(self.slots) if slot.owner and _precedes(slot.owner, owner)]
        free = [n for n, slot in enumerate(self.slots) if slot.owner is None]
        return next(iter([*own, *older, *free]), None)

    def _note(self, owner: Owner, grant: Grant, *, dies: bool) -> None:
        slot = self.slots[grant.slot]
        if slot.owner == owner:
            assert grant.token == slot.token
        else:
            assert grant.token > slot.token
        slot.owner, slot.token = owner, grant.token
        if dies:
            self._wait_for_the_end(grant)
            slot.owner = None

    def _wait_for_the_end(self, grant: Grant) -> None:
        while any(holder.slot == grant.slot for holder in self.backend.holders(self.name.key)):
            pass

    @rule(known=grants)
    def renew(self, known: tuple[Owner, Grant]) -> None:
        assert self.backend.renew(known[1], LIVE) == self._is_live(*known)

    @rule(known=grants)
    def release(self, known: tuple[Owner, Grant]) -> None:
        """Only the holder's own lease ends."""
        live = self._is_live(*known)
        assert self.backend.release(known[1]) == live
        if live:
            self.slots[known[1].slot].owner = None

    @rule(known=grants)
    def forge(self, known: tuple[Owner, Grant]) -> None:
        """An older token, or another nonce, does nothing."""
        assert not self.backend.renew(replace(known[1], token=known[1].token - 1), LIVE)
        assert not self.backend.release(replace(known[1], nonce="another"))

    @precondition(lambda self: any(slot.owner for slot in self.slots))
    @rule()
    def free(self) -> None:
        self.backend.force_release(self.name.key)
        for slot in self.slots:
            slot.owner = None

    @rule()
    def look(self) -> None:
        """What is told of the holders is what the model knows."""
        seen = {holder.slot: (holder.holder, holder.token) for holder in self.backend.holders(self.name.key)}
        assert seen == {n: (slot.owner.holder, slot.token) for n, slot in enumerate(self.slots) if slot.owner}

    def _is_live(self, owner: Owner, grant: Grant) -> bool:
        slot = self.slots[grant.slot]
        return slot.owner == owner and slot.token == grant.token


def _precedes(older: Owner, newer: Owner) -> bool:
    return (older.holder, older.index) == (newer.holder, newer.index) and older.attempt < newer.attempt


@pytest.mark.parametrize("kind", KINDS)
def test_the_backend_and_the_model_agree(kind, request):
    """At least 2,000 steps in a thorough run, some hundreds in every run."""
    backend = build(kind, request, lease=1)
    machine = type("Machine", (Model,), {"backend": backend})
    runs = 80 if os.environ.get("HYPOTHESIS_PROFILE") == "thorough" else 15

    run_state_machine_as_test(machine, settings=settings(max_examples=runs, stateful_step_count=30, deadline=None))

    backend.close()
