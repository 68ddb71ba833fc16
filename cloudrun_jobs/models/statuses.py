"""Where a run, or a task of one, can be."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from django.db import models


class Status(models.TextChoices):
    """Where a run is."""

    PENDING = "pending", "pending"  # Recorded; Cloud Run does not have it yet.
    SENT = "sent", "sent"  # Cloud Run has it; its container has not begun.
    RUNNING = "running", "running"
    SUCCEEDED = "succeeded", "succeeded"  # Every task did.
    FAILED = "failed", "failed"
    CANCELLED = "cancelled", "cancelled"
    SKIPPED = "skipped", "skipped"  # It stepped aside: the same run was under way.
    LOST = "lost", "lost"  # Nobody can say any more what became of it.


UNFINISHED = frozenset({Status.PENDING, Status.SENT, Status.RUNNING})
FINISHED = frozenset(Status) - UNFINISHED

# Where a run may come from, by where it goes. A failed attempt that is tried again brings a failed run back;
# what was given up for lost may turn up after all.
ALLOWED_SOURCES: Mapping[Status, Collection[Status]] = {
    Status.PENDING: (),
    Status.SENT: (Status.PENDING,),
    Status.RUNNING: (Status.PENDING, Status.SENT, Status.RUNNING, Status.FAILED, Status.LOST),
    Status.SUCCEEDED: (Status.SENT, Status.RUNNING, Status.LOST),
    Status.FAILED: (*UNFINISHED, Status.LOST),
    Status.CANCELLED: (*UNFINISHED, Status.LOST),
    Status.SKIPPED: (*UNFINISHED, Status.LOST),
    Status.LOST: tuple(UNFINISHED),
}

# Where it may not come from. A statement for one run says it so: by the statuses it may come from, PostgreSQL
# would look for it in the index of them, where each run that was pending has left a dead entry.
FORBIDDEN_SOURCES: Mapping[Status, Collection[Status]] = {
    to: tuple(status for status in Status if status not in sources) for to, sources in ALLOWED_SOURCES.items()
}
