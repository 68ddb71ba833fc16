"""The poller of the runs that streams follow, with states in place of a database's rows."""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterator, Mapping
from uuid import UUID, uuid4

import pytest
from django.db import OperationalError, ProgrammingError

from cloudrun_jobs.http import poller as module
from cloudrun_jobs.http.poller import Poller, Watch
from tests.waiting import wait_for


class Source:
    """The states of runs, and how they were read."""

    def __init__(self) -> None:
        self.states: dict[UUID, object] = {}
        self.reads: list[Collection[UUID]] = []
        self.threads: list[threading.Thread] = []
        self.error: Exception | None = None
        self.hold: threading.Event | None = None

    def read(self, run_ids: Collection[UUID]) -> Mapping[UUID, object]:
        states = {run_id: self.states[run_id] for run_id in run_ids if run_id in self.states}
        hold, error = self.hold, self.error
        self.reads.append(run_ids)
        self.threads.append(threading.current_thread())
        if hold:
            assert hold.wait(30)
        if error:
            raise error
        return states

    def wait_for_reads(self, number: int) -> None:
        """Wait for that many more reads to begin."""
        expected = len(self.reads) + number
        wait_for(lambda: len(self.reads) >= expected)


@pytest.fixture
def source(monkeypatch: pytest.MonkeyPatch) -> Source:
    monkeypatch.setattr(module, "POLL_INTERVAL", 0.005)
    return Source()


@pytest.fixture
def poller(source: Source) -> Iterator[Poller]:
    poller = Poller(source.read)
    yield poller
    for watch in list(poller._watches):
        poller.remove(watch)
    for thread in source.threads:
        thread.join(30)


def watch(poller: Poller, run_id: UUID | None = None, state: object = "old") -> Watch:
    added = Watch(run_id or uuid4(), state)
    poller.add(added)
    return added


@pytest.mark.parametrize("number", [1, 50])
def test_all_watches_share_one_thread_and_its_reads(source: Source, poller: Poller, number: int) -> None:
    """However many watches there are, an interval has one read."""
    watches = [watch(poller) for _ in range(number)]
    source.states = {each.run_id: "new" for each in watches}

    wait_for(lambda: all(each.state == "new" for each in watches))
    source.wait_for_reads(2)

    assert source.reads[-1] == {each.run_id for each in watches}
    assert len(set(source.threads)) == 1


def test_stream_is_woken_by_a_new_state_only(source: Source, poller: Poller) -> None:
    """A state that is read again wakes nothing."""
    woken = []
    one = Watch(uuid4(), "old")
    one.wake = lambda: woken.append(one.state)
    source.states[one.run_id] = "old"
    poller.add(one)
    source.wait_for_reads(2)
    source.states[one.run_id] = "new"
    wait_for(lambda: woken)
    source.wait_for_reads(2)

    assert woken == ["new"]


def test_missing_run_has_no_state(source: Source, poller: Poller) -> None:
    """A deleted record is a state too."""
    one = watch(poller)

    wait_for(lambda: one.state is None)


def test_thread_ends_with_the_last_watch(source: Source, poller: Poller) -> None:
    """Without a watch nothing is read; the next watch starts another thread."""
    one, two = watch(poller), watch(poller)
    source.wait_for_reads(1)
    poller.remove(one)
    poller.remove(one)
    source.wait_for_reads(2)
    poller.remove(two)
    source.threads[-1].join(30)
    assert not source.threads[-1].is_alive()

    watch(poller)
    source.wait_for_reads(1)

    assert len(set(source.threads)) == 2


def test_outage_of_the_database_is_survived(source: Source, poller: Poller) -> None:
    """Reads fail for a while; then the watch is up to date."""
    source.error = OperationalError("the connection is closed")
    one = watch(poller)
    source.states[one.run_id] = "new"
    source.wait_for_reads(3)
    assert one.state == "old"

    source.error = None

    wait_for(lambda: one.state == "new")
    assert len(set(source.threads)) == 1


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_watch_after_an_error_starts_another_thread(source: Source, poller: Poller) -> None:
    """An error that no retry can mend ends the thread, and is printed."""
    source.error = ProgrammingError("permission denied")
    one = watch(poller)
    source.wait_for_reads(1)
    source.threads[-1].join(30)
    assert not source.threads[-1].is_alive()

    source.error = None
    source.states[one.run_id] = "new"
    watch(poller)

    wait_for(lambda: one.state == "new")


def test_stalled_thread_is_replaced(source: Source, poller: Poller, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that is dead may not reply for many minutes; what it says then is out of date."""
    source.hold = stalled = threading.Event()
    received = []
    one = Watch(uuid4(), "old")
    one.wake = lambda: received.append(one.state)
    source.states[one.run_id] = "out of date"
    poller.add(one)
    wait_for(lambda: source.threads)
    source.hold = None
    source.states[one.run_id] = "new"
    watch(poller)
    assert not received

    monkeypatch.setattr(module, "STALL_TIMEOUT", 0.0)
    watch(poller)
    monkeypatch.setattr(module, "STALL_TIMEOUT", 30.0)
    wait_for(lambda: received)
    stalled.set()
    source.threads[0].join(30)
    source.wait_for_reads(2)

    assert not source.threads[0].is_alive()
    assert received == ["new"]
    assert len(set(source.threads)) == 2
