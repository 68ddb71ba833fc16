"""Models of the items that the tasks of a run divide among themselves."""

from __future__ import annotations

from django.db import models
from django.utils.translation import gettext_lazy as _

from cloudrun_jobs.models.querysets import PrimaryManager
from cloudrun_jobs.models.runs import JobRun, Record


class ItemList(Record):
    """The items of one `shard()` or `claim()` call of a run, as its first task passed them.

    A rerun of failed tasks uses the lists of the first run.
    """

    class Kind(models.TextChoices):
        SHARD = "shard", "shard()"
        CLAIM = "claim", "claim()"

    run = models.ForeignKey(JobRun, on_delete=models.CASCADE, related_name="item_lists")
    kind = models.CharField(max_length=5, choices=Kind)
    #: The number of the call in `run()`, from 0, among the calls of its kind.
    number = models.PositiveIntegerField()
    #: The number of items; null until the list is complete.
    count = models.PositiveBigIntegerField(null=True)
    #: A digest of the items, or of a sample of them.
    digest = models.CharField(max_length=64, blank=True)
    #: For a queryset that is split by primary key: the first key of each share except the first.
    bounds = models.JSONField(null=True)
    #: The worker that writes the list.
    writer = models.UUIDField()
    #: The end of the writer's lease; null once the list is complete.
    writing_until = models.DateTimeField(null=True)

    objects = PrimaryManager()

    class Meta:
        verbose_name = _("item list")
        verbose_name_plural = _("item lists")
        constraints = [
            models.UniqueConstraint(fields=["run", "kind", "number"], name="cloudrun_jobs_one_list_per_call")
        ]

    def __str__(self) -> str:
        return f"{self.run_id} {self.kind}[{self.number}]"


class ItemChunk(Record):
    """Consecutive items of a list. One task at a time works on a chunk."""

    class Status(models.TextChoices):
        OPEN = "open", "open"  #: Some of its items are not done.
        DONE = "done", "done"
        FAILED = "failed", "failed"  #: Its only item has failed, and has no retries left.

    # No separate index: PostgreSQL would use it to take a chunk, and would sort all chunks of the list.
    list = models.ForeignKey(ItemList, on_delete=models.CASCADE, related_name="chunks", db_index=False)
    #: The index of its first item in the list.
    start = models.PositiveBigIntegerField()
    #: The number of its items.
    size = models.PositiveIntegerField()
    items = models.JSONField()
    #: The number of items that are done, or were split off because they failed.
    cursor = models.PositiveIntegerField(default=0)
    status = models.CharField(max_length=6, choices=Status, default=Status.OPEN)
    #: The number of failures of its only item.
    tries = models.PositiveIntegerField(default=0)
    #: The worker that holds the chunk, and the index of its task.
    worker = models.UUIDField(null=True)
    task_index = models.PositiveIntegerField(null=True)
    #: The end of the lease.
    leased_until = models.DateTimeField(null=True)
    #: The latest error of its only item.
    error_class = models.CharField(max_length=200, blank=True)
    error_message = models.TextField(blank=True)

    objects = PrimaryManager()

    class Meta:
        verbose_name = _("item chunk")
        verbose_name_plural = _("item chunks")
        constraints = [
            models.UniqueConstraint(fields=["list", "start", "size"], name="cloudrun_jobs_one_chunk_per_item")
        ]
        indexes = [models.Index(fields=["list", "status", "start"], name="cloudrun_jobs_chunk_status")]

    def __str__(self) -> str:
        return f"{self.list_id}[{self.start}:{self.start + self.size}]"
