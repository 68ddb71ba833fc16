"""Find the holders of the locks of jobs, and release a slot whose holder is gone."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from cloudrun_jobs.locks import names
from cloudrun_jobs.locks.base import Holder
from cloudrun_jobs.locks.configured import current


def holders_by_job(commands: Iterable[str]) -> Mapping[str, Sequence[Holder]]:
    """Return the holders of the locks of these jobs, by command. Raises `LockError`.

    Without the tasks of an execution that holds a slot for all of them.
    """
    locks = [(command, names.for_job(command)) for command in commands]
    by_key = {lock.key: command for command, lock in locks}
    by_label = {lock.label: command for command, lock in locks}
    holders = current().holders(names.prefix())
    slots = {f"{holder.lock}/{holder.slot}" for holder in holders}
    found = defaultdict[str, list[Holder]](list)
    for holder in holders:
        key = holder.lock.partition("/")[0]
        # The label of a lock for arguments has the end of its key.
        command = by_key.get(key) or by_label.get(holder.label.rpartition(f"#{key[-8:]}")[0])
        if command is not None and holder.lock.rpartition("/")[0] not in slots:
            found[command].append(holder)
    return found


def release(lock: str, slot: int, token: int) -> bool:
    """End the lease of a slot with this token, and of the tasks below it; return False if its holder has changed.

    Raises `LockError`.
    """
    backend = current()
    below = backend.holders(f"{lock}/{slot}/")
    if not backend.release_slot(lock, slot, token):
        return False
    for task in below:
        backend.release_slot(task.lock, task.slot, task.token)
    return True
