"""What is asked of the backend for one lease: a slot, or a task's part in the slot of its execution."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace

from cloudrun_jobs.locks.base import Grant, Holder, LockBackend, Owner
from cloudrun_jobs.locks.names import LockName

TASKS_GRACE = 5  # For how many leases' time an execution keeps its slot while none of its tasks lives.


class LockRequest(ABC):
    """One request for a lock, which may be repeated."""

    grant: Grant  # Once taken.

    def __init__(
        self, backend: LockBackend, name: LockName, slots: int, owner: Owner, ttl: float | None = None
    ) -> None:
        self.backend = backend
        self.name = name
        self.slots = slots
        self.owner = owner
        self.ttl = ttl or backend.lease  # Seconds.

    @abstractmethod
    def take(self) -> Sequence[Holder] | None:
        """Take the lock, or return who holds it."""

    def kept(self) -> Sequence[tuple[Grant, float]]:
        """Return what is to be renewed, and for how long each time."""
        return [(self.grant, self.ttl)]

    def renew(self) -> bool:
        """Extend the lease; return False if it had ended."""
        return all(self.backend.renew(grant, ttl) for grant, ttl in self.kept())

    def release(self, *, finished: bool) -> bool:
        """Give the lock back; return False if it was lost before."""
        return self.backend.release(self.grant)


class SlotRequest(LockRequest):
    """A slot for one holder."""

    def take(self) -> Sequence[Holder] | None:
        answer = self.backend.acquire(self.name, self.slots, self.owner, self.ttl)
        if not isinstance(answer, Grant):
            return answer
        self.grant = answer
        return None


class TaskRequest(LockRequest):
    """A slot that all tasks of an execution share, and in it this task's own lock.

    The slot is asked for in the name of the execution, so each task gets the same one, and renews it. It is free
    when all tasks are done, or when none has lived for a while: tasks may come in waves.
    """

    def __init__(
        self, backend: LockBackend, name: LockName, slots: int, owner: Owner, ttl: float | None, tasks: int
    ) -> None:
        super().__init__(backend, name, slots, owner, ttl)
        self.tasks = tasks
        # The start of the next task takes no longer because this one declares a long lease.
        self._grace = max(self.ttl, backend.lease * TASKS_GRACE)

    def take(self) -> Sequence[Holder] | None:
        execution = replace(self.owner, nonce=f"execution:{self.owner.holder}", index=0, attempt=0)
        shared = self.backend.acquire(self.name, self.slots, execution, self._grace)
        if not isinstance(shared, Grant):
            return shared
        index = self.owner.index
        own = self.backend.acquire(self.name.part(f"{shared.slot}/{index}", f"[{index}]"), 1, self.owner, self.ttl)
        if not isinstance(own, Grant):
            return own
        self._shared, self.grant = shared, own
        return None

    def kept(self) -> Sequence[tuple[Grant, float]]:
        return [*super().kept(), (self._shared, self._grace)]

    def release(self, *, finished: bool) -> bool:
        released = super().release(finished=finished)
        if finished and released:
            self.backend.complete_task(self._shared, self.owner.index, self.tasks)
        return released
