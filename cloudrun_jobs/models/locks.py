"""The tables of the locks, for a project that keeps its locks in its database.

The rows are written by the statements of `locks.database` alone. Times are microseconds since 1970 by the
database server's clock: whole numbers compare alike on every server, whatever the session's time zone.
"""

from __future__ import annotations

from django.db import models


class LockSlot(models.Model):
    """One of a lock's places, and who holds it until when."""

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

    def __str__(self) -> str:
        return f"{self.label} ({self.slot})"


class LockToken(models.Model):
    """The fencing token of a slot once more, for the fence.

    Apart from the slot, because `Lease.transaction()` locks this row: a heartbeat must not wait for that.
    """

    id = models.CharField(primary_key=True, max_length=190)  # The slot's.
    token = models.BigIntegerField()

    def __str__(self) -> str:
        return f"{self.id}: {self.token}"


class LockTask(models.Model):
    """A task that is done, of an execution that holds a slot until all of its tasks are."""

    slot_id = models.CharField(max_length=190)
    token = models.BigIntegerField()
    task_index = models.PositiveIntegerField()

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["slot_id", "token", "task_index"], name="cloudrun_jobs_one_end_per_task"
            )
        ]

    def __str__(self) -> str:
        return f"{self.slot_id}: task {self.task_index}"
