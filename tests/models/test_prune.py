"""Pruning deletes old records, but neither the newest of each job nor unfinished runs."""

from __future__ import annotations

from datetime import timedelta
from uuid import uuid4

import pytest
from django.core.management import CommandError, call_command
from django.db import connections
from django.test.utils import CaptureQueriesContext

from cloudrun_jobs.models import ItemChunk, ItemList, JobRun, Status, TaskRun
from cloudrun_jobs.models.functions import Now
from cloudrun_jobs.runs import prune as pruning
from tests.models.conftest import Record


def prune(*options: str) -> None:
    call_command("cloudrun_jobs", "prune", *options)


def counts() -> dict[str, int]:
    return {job: JobRun.objects.for_command(job).count() for job in JobRun.objects.commands()}


def test_old_runs_are_deleted_with_their_tasks(record: Record, capsys: pytest.CaptureFixture[str]) -> None:
    """Old runs are deleted with their tasks, and counted by job."""
    record("old", Status.SUCCEEDED, days=40, count=3)
    record("old", Status.SUCCEEDED, days=20, count=2)
    record("ancient", Status.FAILED, days=400)

    prune("--days=30", "--keep=0")

    assert counts() == {"old": 2}
    assert TaskRun.objects.count() == 2
    printed = capsys.readouterr()
    assert printed.out.splitlines() == ["JOB      RUNS", "ancient  1", "old      3"]
    assert printed.err == "4 runs deleted. `manage.py cloudrun_jobs stats` shows what is left.\n"


def test_prune_keeps_the_newest_of_each_job(record: Record) -> None:
    """The newest runs of each job are kept however old they are."""
    record("rare", Status.SUCCEEDED, days=900, count=3)
    record("frequent", Status.SUCCEEDED, days=100, count=8)

    prune("--keep=5")

    assert counts() == {"rare": 3, "frequent": 5}


def test_prune_keeps_newest_and_unfinished(record: Record) -> None:
    """Unfinished runs count among the newest."""
    old = record("job", Status.FAILED, days=50, count=4)
    record("job", Status.RUNNING, days=1)

    prune("--keep=2")

    assert set(JobRun.objects.filter(status=Status.FAILED)) == {old[0]}


@pytest.mark.parametrize("status", [Status.PENDING, Status.SENT, Status.RUNNING])
def test_unfinished_runs_are_kept(record: Record, status: Status) -> None:
    """An unfinished run is kept however old it is."""
    record("slow", status, days=500, count=2)

    prune("--keep=0", "--days=0")

    assert counts() == {"slow": 2}


def test_age_counts_from_the_end(record: Record) -> None:
    """A long run that has just ended is not old."""
    recent = record("slow", Status.SUCCEEDED)[0].finished_at
    record("slow", Status.SUCCEEDED, days=500, finished_at=recent)

    prune("--keep=0")

    assert counts() == {"slow": 2}


def test_dry_run_deletes_nothing(record: Record, capsys: pytest.CaptureFixture[str]) -> None:
    """--dry-run shows how many runs would be deleted, and deletes none."""
    record("old", Status.LOST, days=40, count=3)

    prune("--keep=1", "--dry-run")

    assert counts() == {"old": 3}
    printed = capsys.readouterr()
    assert printed.out.splitlines() == ["JOB  RUNS", "old  2"]
    assert printed.err == "2 runs would be deleted. Run without --dry-run to delete them.\n"


def test_runs_are_deleted_in_batches(record: Record, monkeypatch: pytest.MonkeyPatch, database: str) -> None:
    """Runs are deleted in short transactions, without reading their long fields."""
    monkeypatch.setattr(pruning, "BATCH_SIZE", 10)
    record("old", Status.SUCCEEDED, days=40, count=25, traceback="x" * 1000)
    runs = pruning.prunable("old", age=timedelta(days=30), keep=0)

    with CaptureQueriesContext(connections[database]) as queries:
        deleted = pruning.delete(runs)

    assert deleted == 25
    assert counts() == {}
    assert len([query for query in queries if "LIMIT 10" in query["sql"]]) == 4
    assert not [query for query in queries if "traceback" in query["sql"]]


@pytest.mark.parametrize("option", ["--days=-1", "--days=x", "--keep=-3", "--keep=1.5", "--days=9999999"])
def test_invalid_numbers_are_refused(database: str, option: str) -> None:
    """The error for an invalid number says what was expected."""
    with pytest.raises(CommandError, match="expected a whole number from 0 to 99999"):
        prune(option)


def test_a_run_that_is_retried_meanwhile_is_kept(record: Record) -> None:
    """A failed run that is retried before its batch is deleted is kept."""
    run, other = record("old", Status.FAILED, days=40, count=2)
    runs = pruning.prunable("old", age=timedelta(days=30), keep=0)
    run.transition(Status.RUNNING, finished_at=None)

    deleted = pruning.delete(runs)

    assert (deleted, set(JobRun.objects.all())) == (1, {run})
    assert other not in JobRun.objects.all()


def with_items(run: JobRun, chunks: int) -> ItemList:
    items = ItemList.objects.create(run=run, kind="claim", number=0, count=chunks, writer=uuid4())
    rows = [ItemChunk(list=items, start=start, size=1, items=[start]) for start in range(chunks)]
    ItemChunk.objects.bulk_create(rows)
    return items


def test_items_are_deleted_in_batches(record: Record, monkeypatch: pytest.MonkeyPatch) -> None:
    """The items of a run are deleted before it, one batch per transaction; items of other runs stay."""
    monkeypatch.setattr(pruning, "CHUNK_BATCH_SIZE", 3)
    old, new = record("job", Status.SUCCEEDED, days=40)[0], record("job", Status.SUCCEEDED, days=1)[0]
    with_items(old, 7)
    kept = with_items(new, 2)
    runs = JobRun.objects.filter(pk=old.pk)

    assert [pruning._delete_batch(runs) for _ in range(5)] == [-1, -1, -1, 1, 0]
    assert list(ItemList.objects.all()) == [kept]
    assert ItemChunk.objects.count() == 2


def test_runs_without_items_need_no_search_for_them(record: Record, database: str) -> None:
    """The items of other runs may be millions."""
    with_items(record("kept", Status.RUNNING)[0], chunks=2)
    record("job", Status.SUCCEEDED, days=50)

    with CaptureQueriesContext(connections[database]) as queries:
        prune("--keep=0")

    assert not [query for query in queries if ItemChunk._meta.db_table in query["sql"]]


def test_a_list_that_is_being_deleted_is_not_complete(record: Record, monkeypatch: pytest.MonkeyPatch) -> None:
    """A retry that reopens the run writes the list again, and loses no item."""
    monkeypatch.setattr(pruning, "CHUNK_BATCH_SIZE", 3)
    old = record("job", Status.SUCCEEDED, days=40)[0]
    with_items(old, 7)
    pruning._delete_batch(JobRun.objects.filter(pk=old.pk))

    assert ItemList.objects.get().count is None
    assert ItemChunk.objects.count() == 4


def test_a_run_is_kept_with_its_rerun(record: Record) -> None:
    """A rerun of failed tasks uses the lists and results of the first run; both are deleted once they are old."""
    first, again = (record("job", Status.FAILED, days=days)[0] for days in (50, 1))
    JobRun.objects.filter(pk=again.pk).update(rerun_of=first)
    prune("--keep=0")
    assert JobRun.objects.filter(pk=first.pk).exists()

    JobRun.objects.update(created_at=Now() - timedelta(days=50), finished_at=Now() - timedelta(days=50))
    prune("--keep=0")
    assert not JobRun.objects.exists()
