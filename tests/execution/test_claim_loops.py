"""Claimed items: one task does each item, failed items are retried and listed, and a retry resumes."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from django.core.management import call_command
from django.db import OperationalError, connections, transaction
from hypothesis import given
from hypothesis import strategies as st

from cloudrun_jobs.exceptions import InvalidItems, JobFailed, JobInterrupted
from cloudrun_jobs.execution.sharding import claims as claiming
from cloudrun_jobs.execution.sharding import lists, writing
from cloudrun_jobs.execution.sharding.items import encoded
from cloudrun_jobs.models import Claims, ItemChunk, ItemList, JobRun, Progress, Status, TaskRun
from cloudrun_jobs.models.functions import Now
from cloudrun_jobs.operations import ExecutionState
from cloudrun_jobs.runs import reruns
from tests.execution.claiming import die, fail_at, in_thread, task
from tests.jobs.management.commands import outcome
from tests.runs.conftest import EXECUTION, OTHER, request
from tests.waiting import wait_for

LETTERS = list("abcdefghij")


@pytest.fixture
def run() -> JobRun:
    return request("outcome")


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lists, "POLL_MAXIMUM_SECONDS", 0.2)
    monkeypatch.setattr(claiming, "WAIT_MAXIMUM_SECONDS", 0.1)


def end_leases() -> None:
    ItemChunk.objects.exclude(leased_until=None).update(leased_until=Now() - timedelta(seconds=1))


def rows() -> list[tuple[Any, ...]]:
    return list(ItemChunk.objects.order_by("start", "-size").values_list("start", "size", "cursor", "status"))


@pytest.mark.parametrize("batch", [1, 3, 100])
def test_each_item_is_done_once(run: JobRun, batch: int) -> None:
    """Of four tasks each does some items, and all together do each item once."""
    barrier = threading.Barrier(4)

    def work(index: int) -> list[int]:
        with task(run, index, count=4) as job:
            barrier.wait(30)
            return list(job.claim(range(60), batch=batch))

    with ThreadPoolExecutor(4) as pool:
        done = list(pool.map(lambda index: in_thread(lambda: work(index)), range(4)))

    assert Counter(item for items in done for item in items) == Counter(range(60))
    assert ItemChunk.objects.count() == -(-60 // batch)
    assert set(ItemChunk.objects.values_list("status", flat=True)) == {"done"}
    assert JobRun.objects.get().progress == Progress(60, 60, "")


@pytest.mark.parametrize("batch", [1, 3])
def test_failed_items_are_retried_and_listed(run: JobRun, batch: int) -> None:
    """The loop continues after a failure; after two retries the item is recorded as failed, with its error."""
    tried: Counter[str] = Counter()
    with task(run) as job:
        for letter in job.claim(LETTERS, batch=batch, item_retries=2):
            with job.item(letter):
                tried[letter] += 1
                if letter == "d" or (letter == "f" and tried["f"] < 3):
                    raise ValueError(f"no {letter}\0")
        found = job.claims

    failed = ItemChunk.objects.get(status="failed")
    assert tried == {**dict.fromkeys(LETTERS, 1), "d": 3, "f": 3}
    assert (failed.items, failed.start, failed.tries) == (["d"], 3, 3)
    assert (failed.error_class, failed.error_message) == ("ValueError", "no d\\x00")
    assert found == Claims(done=9, failed=1, left=0)
    assert not ItemChunk.objects.filter(status="open").exists()


def test_failed_items_are_retried_after_the_rest(run: JobRun) -> None:
    """A failed item is handed out again when the end of the list is reached."""
    order = []
    with task(run) as job:
        for letter in job.claim(["a", "b", "c"], item_retries=1):
            order.append(letter)
            with job.item(letter):
                assert letter != "a"

    assert order == ["a", "b", "c", "a"]


def test_an_error_that_leaves_the_loop_fails_its_item(run: JobRun) -> None:
    """The error ends the task; its item has failed once, and the items after it are free at once."""
    with pytest.raises(ValueError, match="no"), task(run) as job:
        fail_at(job, "c", ValueError("no"), LETTERS, batch=5)

    assert rows() == [(0, 5, 3, "open"), (2, 1, 0, "open"), (5, 5, 0, "open")]
    assert ItemChunk.objects.get(start=2).tries == 1
    assert not ItemChunk.objects.exclude(worker=None).exists()


def test_the_log_counts_the_tries_of_an_item(run: JobRun, caplog: pytest.LogCaptureFixture) -> None:
    """Whether another task retries the item is unknown when it fails: the log has the number of its tries."""
    with task(run) as job:
        for letter in job.claim(["a", "b"], item_retries=1):
            with job.item(letter):
                assert letter != "a"

    messages = [record.getMessage() for record in caplog.records if "item a" in record.getMessage()]
    prefix = "Job outcome-test: item a failed with AssertionError"
    assert messages == [f"{prefix} (try 1 of 2)", f"{prefix} (try 2 of 2)"]


def test_an_error_after_a_break_fails_the_item(run: JobRun) -> None:
    """A loop cannot see whether a break or the error has left it: the item at which it stopped has failed."""

    def work(job: outcome.Command) -> None:
        for letter in job.claim(LETTERS, batch=5):
            if letter == "c":
                break
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"), task(run) as job:
        work(job)

    assert ItemChunk.objects.get(start=2).tries == 1


@pytest.mark.parametrize("error", [JobInterrupted("interrupted"), KeyboardInterrupt(), SystemExit(3)])
def test_an_interrupt_fails_no_item(run: JobRun, error: BaseException) -> None:
    """The cursor is saved and the chunk is free; the current item is neither done nor failed."""

    def work(job: outcome.Command) -> None:
        for letter in job.claim(LETTERS, batch=5):
            with job.item(letter):
                if letter == "c":
                    raise error

    with pytest.raises(type(error)), task(run) as job:
        work(job)

    assert rows() == [(0, 5, 2, "open"), (5, 5, 0, "open")]
    assert not ItemChunk.objects.exclude(worker=None, tries=0).exists()


def test_a_retry_resumes_at_the_cursor(run: JobRun) -> None:
    """The next attempt does the items that the interrupted one has not done, and continues its count."""
    with pytest.raises(JobInterrupted), task(run) as job:
        fail_at(job, "d", JobInterrupted("interrupted"), LETTERS, batch=5)
    with task(run, attempt=1) as job:
        done = list(job.claim(LETTERS, batch=5))

    assert done == LETTERS[3:]
    assert JobRun.objects.get().progress == Progress(10, 10, "")


def test_a_retry_takes_over_at_once(run: JobRun) -> None:
    """The chunk of a killed attempt is free for the next attempt of its task, from the last saved cursor."""
    with task(run) as killed:
        loop = iter(killed.claim(LETTERS, batch=5))
        assert [next(loop) for _ in range(3)] == ["a", "b", "c"]
        killed._active.claims._renew()
        next(loop)
        die(killed)
        with task(run, attempt=1) as job:
            done = list(job.claim(LETTERS, batch=5))

    assert done == LETTERS[2:]


def test_a_superseded_attempt_takes_nothing_back(run: JobRun) -> None:
    """An attempt that was stopped while the next one began takes only other chunks."""
    with task(run) as stopped:
        first = stopped.claim(LETTERS, batch=2)
        next(first)
        with task(run, attempt=1) as job:
            second = job.claim(LETTERS, batch=2)
            assert next(second) == "a"
            stopped._active.claims._renew()
            assert next(first) == "c"


def test_a_superseded_attempt_frees_nothing(run: JobRun) -> None:
    """An attempt that was stopped before its loop does not free the chunks of the next attempt."""
    with task(run, attempt=1) as stopped, task(run, attempt=2) as job:
        loop = job.claim(LETTERS, batch=2)
        assert next(loop) == "a"
        assert next(stopped.claim(["other"])) == "c"


def test_other_tasks_wait_for_the_lease(run: JobRun) -> None:
    """A task that finds only a chunk of another task waits until its lease ends, and does its items again."""
    with task(run) as killed, ThreadPoolExecutor(1) as pool:
        next(killed.claim(LETTERS, batch=10))
        die(killed)

        def work() -> list[str]:
            with task(run, index=1) as job:
                return list(job.claim(LETTERS))

        other = pool.submit(in_thread, work)
        wait_for(lambda: TaskRun.objects.filter(index=1).exists())
        with pytest.raises(TimeoutError):
            other.result(0.5)
        end_leases()

        assert other.result(30) == LETTERS


def test_leases_are_renewed(run: JobRun) -> None:
    """The heartbeat renews a lease of three seconds, and saves the cursor, while the item takes longer."""
    with task(run) as job:
        loop = job.claim(LETTERS, batch=10, lease=3)
        for _ in range(3):
            next(loop)
        before = ItemChunk.objects.get().leased_until

        assert wait_for(lambda: ItemChunk.objects.filter(leased_until__gt=before, cursor=2).exists())


def test_the_rest_of_a_lost_chunk_is_dropped(run: JobRun, caplog: pytest.LogCaptureFixture) -> None:
    """A task that was stopped for longer than its lease drops the chunk that another task has taken."""
    with task(run) as stopped, task(run, index=1) as job:
        first = stopped.claim(LETTERS, batch=3, lease=60)
        assert next(first) == "a"
        end_leases()
        assert next(job.claim(LETTERS)) == "a"
        stopped._active.claims.chunk.leased_until = 0.0  # By its own clock.

        assert next(first) == "d"
    assert "lost the lease of items 1 to 2: another task has taken them over" in caplog.text
    assert rows() == [(0, 3, 0, "open"), (3, 3, 0, "open"), (6, 3, 0, "open"), (9, 1, 0, "open")]


def test_a_late_save_does_not_move_the_cursor_back(run: JobRun) -> None:
    """A renewal that read the cursor before the item was done keeps the saved one."""
    with task(run) as job:
        loop = job.claim(LETTERS, batch=10)
        next(loop)
        ItemChunk.objects.update(cursor=5)
        job._active.claims._renew()

        assert ItemChunk.objects.get().cursor == 5


def test_a_break_frees_the_item(run: JobRun) -> None:
    """After a break the current item is free, and a second loop has its own list."""
    with task(run) as job:
        for letter in job.claim(LETTERS, batch=5):
            if letter == "c":
                break
        assert list(job.claim([1, 2])) == [1, 2]

    assert rows() == [(0, 5, 2, "open"), (0, 1, 1, "done"), (1, 1, 1, "done"), (5, 5, 0, "open")]
    assert not ItemChunk.objects.filter(status="open").exclude(worker=None).exists()


def test_a_chunk_of_a_loop_left_early_is_not_renewed(run: JobRun) -> None:
    """After a break the lease expires, although the task continues."""
    with task(run) as job:
        for _ in job.claim(LETTERS, batch=5):
            break
        before = ItemChunk.objects.get(start=0).leased_until
        job._active.claims._renew()

        assert ItemChunk.objects.get(start=0).leased_until == before


@pytest.mark.parametrize("batch", [1, 5])
def test_atomic_items_are_saved_with_their_writes(run: JobRun, database: str, batch: int) -> None:
    """The item's write and the cursor are committed together; a failed item writes nothing."""
    written, saved = [], []
    with task(run) as job:
        for letter in job.claim(LETTERS, batch=batch, item_retries=0):
            with job.item(letter, atomic=database):
                JobRun.objects.filter(pk=run.pk).update(log_uri=letter)
                assert letter != "d"
            written.append(JobRun.objects.get().log_uri)
            saved.append(sum(ItemChunk.objects.values_list("cursor", flat=True)))
        assert job.claims == Claims(9, 1, 0)

    assert written == list("abccefghij")
    assert saved == [1, 2, 3, 3, *(range(5, 11) if batch == 5 else range(4, 10))]


def test_a_lost_atomic_item_is_rolled_back(run: JobRun, database: str) -> None:
    """An item whose chunk was taken during its work writes nothing, and the loop continues."""
    written = []
    with task(run) as stopped, task(run, index=1) as job, ThreadPoolExecutor(1) as pool:
        loop = stopped.claim(LETTERS, batch=3)
        letter = next(loop)
        end_leases()
        with stopped.item(letter, atomic=database):
            # SQLite has one writer: the other task takes the chunk before this one writes.
            assert pool.submit(in_thread, lambda: next(job.claim(LETTERS))).result(30) == "a"
            JobRun.objects.filter(pk=run.pk).update(log_uri=letter)
        written.append(JobRun.objects.get().log_uri)
        letter = next(loop)
        with stopped.item(letter, atomic=database):
            JobRun.objects.filter(pk=run.pk).update(log_uri=letter)
        written.append(JobRun.objects.get().log_uri)

    assert written == ["", "d"]


def test_a_lost_reply_to_the_commit_is_no_failure(
    run: JobRun, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An item whose transaction was committed is done, even if the connection reports an error."""
    with task(run) as job:
        for letter in job.claim(["a", "b"], batch=2):
            with monkeypatch.context() as patch:
                commit = connections[database].commit

                def lose_reply(commit: Any = commit, patch: pytest.MonkeyPatch = patch) -> None:
                    patch.undo()
                    commit()
                    raise OperationalError("gone")

                patch.setattr(connections[database], "commit", lose_reply)
                with job.item(letter, atomic=database):
                    JobRun.objects.filter(pk=run.pk).update(log_uri=letter)
        assert job.claims == Claims(2, 0, 0)

    assert JobRun.objects.get().log_uri == "b"


@pytest.mark.parametrize("database", ["postgres", "mariadb"], indirect=True)
def test_a_commit_in_progress_is_awaited(run: JobRun, database: str) -> None:
    """The connection may be lost while the server commits: the item is done, and must not fail."""
    with task(run) as job, ThreadPoolExecutor(1) as pool:
        next(job.claim(LETTERS, batch=3))
        chunks, chunk = job._active.claims._chunks, job._active.claims.chunk
        has_written = threading.Event()

        def commit_slowly() -> None:
            with transaction.atomic(using=database):
                chunks.advance(chunk)
                has_written.set()
                time.sleep(0.5)

        other = pool.submit(in_thread, commit_slowly)
        assert has_written.wait(30)

        assert chunks.is_saved(chunk)
        other.result(30)


def test_an_iterator_is_written_once(run: JobRun, monkeypatch: pytest.MonkeyPatch) -> None:
    """A task whose list was taken over does not write the rest of its iterator as the list."""
    monkeypatch.setattr(writing, "ROWS_PER_INSERT", 2)
    insert, written = writing._insert, []

    def take_over(items: ItemList, chunks: list[ItemChunk]) -> None:
        insert(items, chunks)
        written.extend(chunks)
        if len(written) == 4:
            raise lists.ListTakenOver

    monkeypatch.setattr(writing, "_insert", take_over)
    with pytest.raises(InvalidItems, match="this task has read a part of its items"), task(run) as job:
        job.claim(iter(LETTERS))
    with task(run, attempt=1) as job:
        assert list(job.claim(iter(LETTERS))) == LETTERS


def test_an_error_of_a_commit_hook_ends_the_task(run: JobRun, database: str) -> None:
    """The item is done, and the error is not recorded as its failure."""

    def work(job: outcome.Command) -> None:
        for letter in job.claim(LETTERS, batch=2):
            with job.item(letter, atomic=database):
                transaction.on_commit(lambda: 1 / 0, using=database)

    with pytest.raises(ZeroDivisionError), task(run) as job:
        work(job)

    assert rows()[0] == (0, 2, 1, "open")
    assert not ItemChunk.objects.exclude(tries=0).exists()


def test_claims_count_the_whole_run(run: JobRun) -> None:
    """The counts cover all tasks; outside a run they are 0."""
    with task(run) as job, task(run, index=1) as other:
        loop = job.claim(LETTERS, batch=2)
        for _ in range(4):
            next(loop)
        next(other.claim(LETTERS))

        assert job.claims == Claims(done=3, failed=0, left=7)
        assert other.claims == Claims(done=2, failed=0, left=8)
    assert outcome.Command().claims == Claims(0, 0, 0)


def test_an_empty_list_ends_the_loop(run: JobRun) -> None:
    """Without items, the loop ends and the run succeeds."""
    with task(run) as job:
        assert list(job.claim([])) == []
        assert job.claims == Claims(0, 0, 0)


def test_a_rerun_does_the_items_that_are_left(run: JobRun) -> None:
    """A rerun of failed tasks uses the list of the first run, even in a task without a share."""
    with task(run) as job:
        for letter in job.claim(LETTERS, batch=2):
            if letter == "d":
                break
    shares = {"origin": str(run.pk), "count": 2, "indexes": [1]}
    again = request("outcome", shares=shares, rerun_of=run)
    with task(again, index=1, execution=OTHER) as job:
        assert job._active.attempt.share.index is None
        assert list(job.claim(["other"])) == LETTERS[3:]

    again.refresh_from_db()
    assert (again.items_total, again.progress) == (7, Progress(7, 7, ""))


def test_the_progress_of_an_ended_run_counts_the_items_of_a_killed_attempt(run: JobRun) -> None:
    """The killed attempt has reported nothing, but its finished chunk counts when the run ends."""
    with task(run, count=1) as killed:
        loop = killed.claim(LETTERS, batch=5)
        for _ in range(7):
            next(loop)
        die(killed)
        with task(run, attempt=1, count=1) as job:
            assert list(job.claim(LETTERS)) == LETTERS[5:]

    assert JobRun.objects.get().progress == Progress(10, 10, "")


def test_the_progress_of_an_ended_run_counts_no_item_twice(run: JobRun) -> None:
    """Items that a killed attempt had reported, and another task did again, count once."""
    with task(run, index=1):
        TaskRun.objects.update(progress_done=3)
    with task(run) as job:
        assert list(job.claim(LETTERS)) == LETTERS

    assert JobRun.objects.get().progress == Progress(10, 10, "")


def test_progress_in_other_units_is_not_corrected(run: JobRun) -> None:
    """A task that reports a total of its own does not count items."""
    with task(run, count=1) as job:
        list(job.claim(LETTERS))
        job.progress(3, 7)

    assert JobRun.objects.get().progress == Progress(3, 7, "")


@pytest.mark.parametrize("status", [Status.SUCCEEDED, Status.FAILED])
def test_the_progress_is_corrected_if_the_service_reports_the_end(run: JobRun, status: Status) -> None:
    """A run whose last process was killed shows the items that are done."""
    with task(run, count=1) as killed:
        loop = killed.claim(LETTERS, batch=5)
        for _ in range(6):
            next(loop)
        die(killed)
        assert run.apply_state(ExecutionState(status=status), EXECUTION)

        assert JobRun.objects.get().progress == Progress(5, 10, "")


def test_a_rerun_counts_the_items_that_it_does(run: JobRun) -> None:
    """The total of a rerun with one task is what the first run has left, and that run's progress stays."""

    def work(job: outcome.Command) -> None:
        for letter in job.claim(LETTERS, item_retries=0):
            with job.item(letter):
                assert letter != "d"

    with task(run, count=1) as job:
        work(job)
    again = request("outcome", shares={"origin": str(run.pk), "count": 1, "indexes": [0]}, rerun_of=run)
    reruns.reopen_items(again)
    with task(again, count=1, execution=OTHER) as job:
        work(job)

    assert [JobRun.objects.get(pk=each.pk).progress for each in (run, again)] == [
        Progress(9, 10, ""),
        Progress(0, 1, ""),
    ]


def test_the_list_of_a_dead_writer_is_rewritten(run: JobRun, monkeypatch: pytest.MonkeyPatch) -> None:
    """The chunks of a task that died while it wrote the list are deleted."""
    monkeypatch.setattr(writing, "ROWS_PER_INSERT", 2)
    monkeypatch.setattr(writing, "ROWS_PER_DELETE", 1)

    def dying() -> Iterator[int]:
        yield from (90, 91, 92, 93, 94)
        raise JobInterrupted("interrupted")

    with pytest.raises(JobInterrupted), task(run) as job:
        job.claim(dying())
    assert ItemChunk.objects.count() == 2
    assert job.claims == Claims(0, 0, 0)
    with task(run, attempt=1) as job:
        assert list(job.claim([1, 2, 3])) == [1, 2, 3]

    assert ItemList.objects.get().count == 3


@pytest.mark.parametrize("batch", [1, 5])
def test_lost_replies_lose_no_item(run: JobRun, batch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every statement that changes a chunk is retried after a lost reply; each item is still done once."""
    commit, is_lost = lists.database.retry_until_available, [False]

    def twice(work: Any, *, seconds: float) -> Any:
        def lose_first() -> Any:
            is_lost[0] = not is_lost[0]
            result = work()
            if is_lost[0]:
                raise OperationalError("gone")
            return result

        return commit(lose_first, seconds=seconds)

    tried: Counter[str] = Counter()
    with task(run) as job:
        loop = job.claim(LETTERS[:5], batch=batch, item_retries=1)
        monkeypatch.setattr(lists.database, "retry_until_available", twice)
        for letter in loop:
            with job.item(letter):
                tried[letter] += 1
                assert letter not in "ce"
        assert job.claims == Claims(3, 2, 0)

    assert tried == {"a": 1, "b": 1, "c": 2, "d": 1, "e": 2}


def test_an_inline_run_claims_in_its_callers_transaction(monkeypatch: pytest.MonkeyPatch, database: str) -> None:
    """Inline, one task does all items, even in a transaction; failed items do not affect the other ones."""
    seen = []

    def work(self: outcome.Command, **options: Any) -> None:
        for letter in self.claim(LETTERS, batch=4, item_retries=0):
            with self.item(letter):
                seen.append(letter)
                assert letter != "b"

    monkeypatch.setattr(outcome.Command, "run", work)
    with transaction.atomic(using=database), pytest.raises(JobFailed, match='1 item failed: "b"'):
        call_command(outcome.Command(), "none")

    assert seen == LETTERS
    assert ItemChunk.objects.get(status="failed").items == ["b"]


def test_the_runner_releases_the_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that fails in the loop leaves its chunk free, with the failure of the item."""

    def work(self: outcome.Command, **options: Any) -> None:
        for letter in self.claim(LETTERS, batch=4):
            assert letter != "b"

    monkeypatch.setattr(outcome.Command, "run", work)
    with pytest.raises(AssertionError):
        call_command(outcome.Command(), "none")

    assert rows()[:2] == [(0, 4, 2, "open"), (1, 1, 0, "open")]
    assert JobRun.objects.get().status == Status.FAILED
    assert not ItemChunk.objects.exclude(worker=None).exists()


def test_without_a_run_all_items_are_yielded(database: str) -> None:
    """If run() is called directly, claim() yields every item, and item() lets exceptions propagate."""
    job = outcome.Command()

    assert list(job.claim(LETTERS)) == LETTERS
    with pytest.raises(ZeroDivisionError), job.item("a"):
        1 / 0  # noqa: B018
    with job.item("a", atomic=database):
        assert connections[database].in_atomic_block
    with pytest.raises(InvalidItems, match="a tuple at index 1"):
        list(job.claim([1, (2,)]))


def test_an_interrupt_ends_the_loop(run: JobRun) -> None:
    """After SIGTERM no item is handed out, even if the job has caught its exception."""
    with task(run) as job:
        loop = job.claim(LETTERS)
        next(loop)
        job._active.termination.request()

        for _ in range(2):
            with pytest.raises(JobInterrupted):
                next(loop)


TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(-1e15, 1e15).filter(lambda number: str(number) != "-0.0")
    | TEXT,
    lambda children: st.lists(children, max_size=3) | st.dictionaries(TEXT, children, max_size=3),
    max_leaves=8,
)


def test_accepted_items_come_back_unchanged(database: str) -> None:
    """The database returns accepted items with the same values and types."""

    @given(st.lists(VALUES, max_size=5))
    def check(values: list[Any]) -> None:
        items = [item for item, _ in encoded("claim()", values)]
        chunk = ItemChunk.objects.create(list=row, start=0, size=len(items), items=items)
        stored = ItemChunk.objects.get(pk=chunk.pk).items
        chunk.delete()
        assert json.dumps(stored, sort_keys=True) == json.dumps(values, sort_keys=True)

    row = ItemList.objects.create(run=request("outcome"), kind="claim", number=0, writer=UUID(int=1))
    check()


def test_each_element_has_its_own_items() -> None:
    """Each task of delay_many() has its own lists, and the run counts the items of all tasks."""
    run = request("outcome", elements=2)
    for index in range(2):
        TaskRun.objects.create(run=run, index=index, worker=run.pk, status=Status.PENDING)
    with task(run) as first, task(run, index=1) as second:
        assert list(first.claim(["a", "b"])) == ["a", "b"]
        assert list(second.claim(["a", "c", "d"])) == ["a", "c", "d"]
        assert list(second.claim(["e"])) == ["e"]
        assert list(first.claim(["f"])) == ["f"]
        assert first.claims == Claims(7, 0, 0)

    run.refresh_from_db()
    assert run.items_total == 7
