"""The lock tables of a project that keeps its locks in its database.

Only the statements in `locks.database` write them. Times are microseconds since 1970 by the database server's
clock: integers compare alike on every server, whatever the session's time zone.
"""

from __future__ import annotations

from django.db import models
from django.utils.translation import gettext_lazy as _


class LockSlot(models.Model):
    """One slot of a lock, its holder and the end of its lease."""

    id = models.CharField(primary_key=True, max_length=190)  # The lock's key, ":", the slot's number.
    lock_key = models.CharField(max_length=180, db_index=True)
    slot = models.PositiveIntegerField()
    label = models.CharField(max_length=200)
    holder = models.CharField(max_length=255)
    task_index = models.PositiveIntegerField()
    attempt = models.PositiveIntegerField()
    nonce = models.CharField(max_length=255)
    token = models.BigIntegerField()
    acquired_us = models.BigIntegerField()
    expires_us = models.BigIntegerField()
    #: The receipts of the latest releases. They identify a release that is repeated after a lost reply.
    released = models.CharField(max_length=1000, db_default="")

    class Meta:
        verbose_name = _("lock slot")
        verbose_name_plural = _("lock slots")

    def __str__(self) -> str:
        return f"{self.label} ({self.slot})"


class LockToken(models.Model):
    """A copy of a slot's fencing token.

    `Lease.transaction()` locks this row and not the slot's, so that lease renewal need not wait for it.
    """

    id = models.CharField(primary_key=True, max_length=190)  # That of the slot.
    token = models.BigIntegerField()

    class Meta:
        verbose_name = _("lock token")
        verbose_name_plural = _("lock tokens")

    def __str__(self) -> str:
        return f"{self.id}: {self.token}"


class LockTask(models.Model):
    """A completed task of an execution that holds a slot until all of its tasks are complete."""

    slot_id = models.CharField(max_length=190)
    token = models.BigIntegerField()
    task_index = models.PositiveIntegerField()

    class Meta:
        verbose_name = _("lock task")
        verbose_name_plural = _("lock tasks")
        constraints = [
            models.UniqueConstraint(
                fields=["slot_id", "token", "task_index"], name="cloudrun_jobs_one_end_per_task"
            )
        ]

    def __str__(self) -> str:
        return f"{self.slot_id}: task {self.task_index}"
