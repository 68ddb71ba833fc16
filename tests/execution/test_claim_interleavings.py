"""Tasks that claim items, in any order of their steps, failures, deaths, interrupts, freezes and retries."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from django.db import connections
from django.db.models import Q
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from cloudrun_jobs.environ import CloudRunTask
from cloudrun_jobs.exceptions import JobInterrupted
from cloudrun_jobs.execution import recording as attempts
from cloudrun_jobs.execution.active import ActiveRun
from cloudrun_jobs.execution.attempt import Attempt
from cloudrun_jobs.execution.claim import Invocation
from cloudrun_jobs.execution.heartbeat import Heartbeat
from cloudrun_jobs.execution.sharding import claims as claiming
from cloudrun_jobs.execution.termination import Termination
from cloudrun_jobs.models import ItemChunk, JobRun
from cloudrun_jobs.models.functions import Now
from tests.examples import scaled
from tests.jobs.management.commands import outcome
from tests.runs.conftest import EXECUTION, request
from tests.servers.fixtures import add_database
from tests.servers.routing import forget, records_in

EFFECT = "effect"


class Waits(Exception):
    """Other tasks hold all items that are left."""


@pytest.fixture(autouse=True)
def database(tmp_path: Path, settings: Any, django_db_setup: None, django_db_blocker: Any) -> Iterator[str]:
    """A database that does not wait for the disk."""
    options = {"transaction_mode": "IMMEDIATE", "init_command": "PRAGMA synchronous=OFF"}
    place = {"ENGINE": "django.db.backends.sqlite3", "NAME": str(tmp_path / "db.sqlite3"), "OPTIONS": options}
    with django_db_blocker.unblock():
        alias = add_database("claims", place)
    with records_in(alias, settings, django_db_blocker):
        yield alias
        connections[alias].close()
        del connections[alias], connections.settings[alias]


@pytest.fixture(autouse=True)
def _one_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make a task stop where it would wait, and send no heartbeats."""

    def once(*args: Any, **options: Any) -> Iterator[float]:
        yield 0.0
        raise Waits

    monkeypatch.setattr(claiming, "attempts", once)
    monkeypatch.setattr(Heartbeat, "start", lambda *args: None)


@dataclass(eq=False)
class Process:
    """One attempt of a task, which holds an item between two steps."""

    world: World
    index: int
    attempt: int
    current: Any = None
    is_frozen: bool = False
    is_over: bool = False
    has_ended: bool = False  # The loop has reached the end of the list.

    def __post_init__(self) -> None:
        world = self.world
        place = CloudRunTask("outcome-test", EXECUTION, self.index, self.attempt, world.tasks, str(world.run.pk))
        start = Invocation(command="outcome", environment="test", argv=["outcome"], task=place)
        begun = attempts._claim(start, outcome.Command().spec, uuid4())
        assert isinstance(begun, Attempt)
        self.job = outcome.Command()
        self.job._active = ActiveRun(begun.run)
        self.job._active.attempt, self.job._active.termination = begun, Termination()
        retries = world.retries
        self.loop = self.job.claim(range(world.count), batch=world.batch, item_retries=retries)

    def go(self) -> None:
        """Take the next item; the current one is done."""
        if self.current is not None:
            self.do()
        self.is_frozen = False
        try:
            self.current = next(self.loop)
        except Waits:
            pass
        except StopIteration:
            self.is_over = self.has_ended = True

    def do(self) -> None:
        with self.job.item(self.current, atomic=self.world.alias):
            JobRun.objects.create(command=EFFECT, environment="test", trigger="http", reason=str(self.current))
        self.current = None

    def fail(self) -> None:
        if self.current is not None:
            self.world.failures[self.current] += 1
            with self.job.item(self.current, atomic=self.world.alias):
                JobRun.objects.create(command=EFFECT, environment="test", trigger="http", reason="never")
                raise ValueError
            self.current = None

    def renew(self) -> None:
        loop = self.job._active.claims
        loop._renew()
        # A frozen process notices it at its next step.
        self.is_frozen = self.is_frozen and loop.chunk is not None and loop.chunk.is_lost

    def freeze(self) -> None:
        """Let the lease end while the process is stopped."""
        loop = self.job._active.claims
        past = Now() - timedelta(seconds=1)
        held = Q(worker=self.job._active.attempt.worker) & ~Q(leased_until=None)
        ItemChunk.objects.filter(held).update(leased_until=past)
        if loop.chunk is not None:
            loop.chunk.leased_until = 0.0
        self.is_frozen = True

    def interrupt(self) -> None:
        self.job._active.claims.close(JobInterrupted("interrupted"))
        self.current, self.is_over = None, True

    def die(self) -> None:
        self.current, self.is_over = None, True


@dataclass
class World:
    alias: str
    count: int
    batch: int
    tasks: int
    retries: int
    failures: Counter[int] = field(default_factory=Counter)
    processes: list[Process] = field(default_factory=list)

    def __post_init__(self) -> None:
        forget(self.alias)
        self.run = request("outcome")

    def live(self) -> list[Process]:
        return [process for process in self.processes if not process.is_over]

    def startable(self) -> list[tuple[int, int]]:
        """Return the tasks that Cloud Run may start: index and attempt."""
        latest = {process.index: process for process in self.processes}
        found = [(index, 0) for index in range(self.tasks) if index not in latest]
        return found + [
            (index, last.attempt + 1) for index, last in latest.items() if last.is_over and not last.has_ended
        ]

    def start(self, index: int, attempt: int) -> None:
        self.processes.append(Process(self, index, attempt))

    def check_exclusion(self) -> None:
        """No two live tasks hold the same item, unless one was frozen past its lease."""
        held = [
            process.current for process in self.live() if process.current is not None and not process.is_frozen
        ]
        assert len(held) == len(set(held)), held

    def finish(self) -> None:
        for _ in range(200):
            for start in self.startable():
                self.start(*start)
            for process in self.live():
                process.go()
                self.check_exclusion()
            for process in self.processes:
                if process.is_over:
                    process.freeze()  # The leases of dead processes expire.
            if not self.live() and not self.startable():
                return
        raise AssertionError("the tasks do not end")

    def check(self) -> None:
        """Each item is done once or listed as failed, and no item is held or left."""
        effects = Counter(JobRun.objects.filter(command=EFFECT).values_list("reason", flat=True))
        failed = [chunk.items for chunk in ItemChunk.objects.filter(status="failed")]
        listed = Counter(item for items in failed for item in items)
        assert effects + Counter(map(str, listed.elements())) == Counter(map(str, range(self.count)))
        assert all(self.failures[item] > self.retries for item in listed)
        assert not ItemChunk.objects.filter(status="open").exists()


def test_each_item_is_done_once_or_listed(database: str) -> None:
    """In any interleaving, each item is written exactly once or listed as failed."""

    @settings(
        max_examples=scaled(25),
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.explicit, Phase.generate, Phase.shrink],
    )
    @given(st.integers(1, 8), st.integers(1, 4), st.integers(1, 3), st.integers(0, 2), st.data())
    def check(count: int, batch: int, tasks: int, retries: int, data: st.DataObject) -> None:
        world = World(database, count, batch, tasks, retries)
        for _ in range(data.draw(st.integers(0, 25), label="steps")):
            choose(world, data)
            world.check_exclusion()
        world.finish()
        world.check()

    check()


def choose(world: World, data: st.DataObject) -> None:
    """Do one of the things that can happen next."""
    steps: list[tuple[Any, ...]] = [("start", *start) for start in world.startable()]
    alive = [n for n, process in enumerate(world.processes) if not process.is_over]
    actions = ("go", "go", "go", "fail", "renew", "freeze", "interrupt", "die")
    steps += [(action, n) for action in actions for n in alive]
    action, *values = data.draw(st.sampled_from(steps or [("nothing",)]))
    if action == "start":
        world.start(*values)
    elif values:
        getattr(world.processes[values[0]], action)()
