"""A state machine: any sequence of requests, expiries, retries and lost replies, against a model."""

from __future__ import annotations

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
from tests.examples import scaled
from tests.locks.conftest import KINDS, build

SLOTS = 2
LIVE_TTL = 600.0  # Seconds.
EXPIRED_TTL = 0.001  # Seconds: over by the time of the next request.


@dataclass
class Slot:
    """A slot of the model. Without an owner, its lease has ended."""

    owner: Owner | None = None
    token: int = 0


class Model(RuleBasedStateMachine):
    """Executions request a lock of two slots, in any order and repeatedly."""

    backend: LockBackend
    grants: Bundle[tuple[Owner, Grant]] = Bundle("grants")

    @initialize()
    def begin(self) -> None:
        self.name = names.lock_name(f"model {uuid4()}")
        self.slots = [Slot() for _ in range(SLOTS)]
        self.released: set[Grant] = set()

    @rule(
        target=grants,
        execution=st.sampled_from("abc"),
        index=st.integers(0, 1),
        attempt=st.integers(0, 2),
        expires=st.booleans(),
    )
    def acquire(self, execution: str, index: int, attempt: int, expires: bool) -> Any:
        """A process requests the lock; `expires` makes its lease end at once."""
        owner = Owner(holder=execution, index=index, attempt=attempt, nonce=uuid4().hex)
        return self._acquire(owner, expires=expires)

    @rule(target=grants, known=grants, expires=st.booleans())
    def repeat(self, known: tuple[Owner, Grant], expires: bool) -> Any:
        """A process repeats a request, as after a lost reply."""
        return self._acquire(known[0], expires=expires)

    def _acquire(self, owner: Owner, *, expires: bool) -> Any:
        expected = self._slot_for(owner)
        answer = self.backend.acquire(self.name, SLOTS, owner, EXPIRED_TTL if expires else LIVE_TTL)
        if expected is None:
            assert not isinstance(answer, Grant)
            assert [holder.slot for holder in answer] == [0, 1]
            return multiple()
        assert isinstance(answer, Grant)
        assert answer.slot == expected
        self._note(owner, answer, expires=expires)
        return owner, answer

    def _slot_for(self, owner: Owner) -> int | None:
        own = [n for n, slot in enumerate(self.slots) if slot.owner == owner]
        older = [n for n, slot in enumerate(self.slots) if slot.owner and _precedes(slot.owner, owner)]
        free = [n for n, slot in enumerate(self.slots) if slot.owner is None]
        return next(iter([*own, *older, *free]), None)

    def _note(self, owner: Owner, grant: Grant, *, expires: bool) -> None:
        slot = self.slots[grant.slot]
        if slot.owner == owner:
            assert grant.token == slot.token
        else:
            assert grant.token > slot.token
        slot.owner, slot.token = owner, grant.token
        if expires:
            self._wait_for_expiry(grant)
            slot.owner = None

    def _wait_for_expiry(self, grant: Grant) -> None:
        while any(holder.slot == grant.slot for holder in self.backend.holders(self.name.key)):
            pass

    @rule(known=grants)
    def renew(self, known: tuple[Owner, Grant]) -> None:
        assert self.backend.renew(known[1], LIVE_TTL) == self._is_live(*known)

    @rule(known=grants)
    def release(self, known: tuple[Owner, Grant]) -> None:
        """Only a lease of the holder ends; a release that is repeated gets the same answer."""
        if self._is_live(*known):
            self.slots[known[1].slot].owner = None
            self.released.add(known[1])
        assert self.backend.release(known[1]) == (known[1] in self.released)

    @rule(known=grants)
    def forge(self, known: tuple[Owner, Grant]) -> None:
        """An older token or another nonce does nothing."""
        assert not self.backend.renew(replace(known[1], token=known[1].token - 1), LIVE_TTL)
        assert not self.backend.release(replace(known[1], nonce="another"))

    @precondition(lambda self: any(slot.owner for slot in self.slots))
    @rule()
    def take_away(self) -> None:
        for holder in self.backend.holders(self.name.key):
            assert self.backend.release_slot(holder.lock, holder.slot, holder.token)
        for slot in self.slots:
            slot.owner = None

    @rule(execution=st.sampled_from("abcd"))
    def release_holder(self, execution: str) -> None:
        """An execution is over, whatever of it still runs."""
        held = [slot for slot in self.slots if slot.owner and slot.owner.holder == execution]
        assert self.backend.release_holder(self.name.key, execution) == len(held)
        for slot in held:
            slot.owner = None

    @rule()
    def holders(self) -> None:
        """The holders are those of the model."""
        seen = {holder.slot: (holder.holder, holder.token) for holder in self.backend.holders(self.name.key)}
        assert seen == {n: (slot.owner.holder, slot.token) for n, slot in enumerate(self.slots) if slot.owner}

    def _is_live(self, owner: Owner, grant: Grant) -> bool:
        slot = self.slots[grant.slot]
        return slot.owner == owner and slot.token == grant.token


def _precedes(older: Owner, newer: Owner) -> bool:
    return (older.holder, older.index) == (newer.holder, newer.index) and older.attempt < newer.attempt


@pytest.mark.parametrize("kind", KINDS)
def test_backend_and_model_agree(kind, request):
    """At least 2,000 steps in a thorough run, some hundreds in every run."""
    backend = build(kind, request, lease=1)
    machine = type("Machine", (Model,), {"backend": backend})
    search = settings(max_examples=scaled(15), stateful_step_count=30, deadline=None)

    run_state_machine_as_test(machine, settings=search)

    backend.close()
