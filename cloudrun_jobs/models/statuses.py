"""Run and task statuses, and the allowed transitions."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from django.db import models
from django.utils.translation import gettext_lazy as _


class Status(models.TextChoices):
    """The status of a run or of one of its tasks."""

    PENDING = "pending", _("pending")  #: Recorded, but not yet dispatched.
    SENT = "sent", _("sent")  #: Dispatched; no container has claimed it yet.
    RUNNING = "running", _("running")  #: Claimed by a container or process.
    #: Every task succeeded. With `lock_scope = "task"`, a skipped task counts as done if another one succeeded.
    SUCCEEDED = "succeeded", _("succeeded")
    FAILED = "failed", _("failed")  #: A task failed on its last attempt, or the run could not be dispatched.
    CANCELLED = "cancelled", _("cancelled")  #: Cancelled before its end.
    SKIPPED = "skipped", _("skipped")  #: Another execution holds the lock, or has claimed the same tick.
    LOST = "lost", _("lost")  #: The outcome could not be determined.


UNFINISHED = frozenset({Status.PENDING, Status.SENT, Status.RUNNING})
FINISHED = frozenset(Status) - UNFINISHED

# The statuses of tasks that need not be repeated.
DONE = (Status.SUCCEEDED, Status.SKIPPED)

# The reasons of attempts that SIGTERM ended. Cloud Run may report later that they were cancelled.
SIGTERM_REASONS = ("timeout", "interrupted")

# The reason of a run that Cloud Run reports as succeeded, and whose job has not recorded its result.
NOT_RECORDED = "not_recorded"

# The reason of a run whose tasks succeeded, but whose items failed or are not done.
ITEMS = "items"

# The statuses from which a run may enter each status. A retry reopens a failed run, and a run marked as lost may
# still report its outcome.
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

# Updates of one run exclude these statuses instead of listing the allowed ones: for a list, PostgreSQL would scan
# the index on the status, which keeps a dead entry for each run that has been pending.
FORBIDDEN_SOURCES: Mapping[Status, Collection[Status]] = {
    to: tuple(status for status in Status if status not in sources) for to, sources in ALLOWED_SOURCES.items()
}
