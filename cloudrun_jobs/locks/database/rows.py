"""A slot as the database returns it."""

from __future__ import annotations

from typing import NamedTuple

from cloudrun_jobs.locks.base import Grant, Holder, Owner, moment


class Row(NamedTuple):
    """The columns of `Dialect.read`, in their order."""

    lock: str
    slot: int
    label: str
    owner: str
    task_index: int
    attempt: int
    nonce: str
    token: int
    acquired_us: int
    expires_us: int
    now_us: int

    @property
    def live(self) -> bool:
        """Whether the lease had not ended when the server read it."""
        return self.expires_us > self.now_us

    def may_pass_to(self, owner: Owner) -> bool:
        """Return True if this is the lease of an earlier attempt of the same task."""
        return (self.owner, self.task_index) == (owner.holder, owner.index) and self.attempt < owner.attempt

    def grant(self) -> Grant:
        return Grant(lock=self.lock, slot=self.slot, nonce=self.nonce, token=self.token)

    def holder(self) -> Holder:
        return Holder(
            lock=self.lock,
            label=self.label,
            slot=self.slot,
            holder=self.owner,
            index=self.task_index,
            attempt=self.attempt,
            token=self.token,
            since=moment(self.acquired_us),
            until=moment(self.expires_us),
        )
