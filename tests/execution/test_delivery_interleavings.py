"""Deliveries, deaths and shutdowns in any order: the work is done once, and the retries are those of the job."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pytest_django import Settings

from cloudrun_jobs.exceptions import JobInterrupted
from cloudrun_jobs.execution.attempt import Attempt
from cloudrun_jobs.execution.supervision import Death, record_death
from cloudrun_jobs.models import JobRun, Status
from tests.examples import scaled
from tests.execution.test_delivery import WORKER, new_run, silence, work
from tests.jobs.management.commands import outcome
from tests.runs.conftest import store_records

MAX_FAILURES = outcome.Command.max_retries + 1
FAILURES = ("raise", "die")


@pytest.fixture(params=["sqlite"], autouse=True)
def database(request: pytest.FixtureRequest, settings: Settings, django_db_blocker: Any) -> Iterator[str]:
    """Store the records in SQLite: each statement is tested in every database elsewhere."""
    yield from store_records(request, settings, django_db_blocker)


class Killed(BaseException):
    """Stands for SIGKILL: nothing is recorded after it."""


class World:
    """One run, whose attempts end as `endings` say, and then succeed."""

    def __init__(self, endings: list[str]) -> None:
        self.run = new_run("outcome", "text")
        self.endings = list(endings)
        self.ended: list[str] = []

    def work(self, *args: Any, **options: Any) -> str:
        ending = self.endings.pop(0) if self.endings else "succeed"
        self.ended.append(ending)
        match ending:
            case "raise":
                raise ValueError("no good")
            case "interrupt":
                raise JobInterrupted("interrupted")
            case "die":
                raise Killed
        return "all done"

    def deliver(self) -> None:
        end = Attempt.end

        def unless_killed(attempt: Attempt, error: BaseException | None, *args: Any) -> None:
            attempt.heartbeat.stop() if isinstance(error, Killed) else end(attempt, error, *args)

        patched = patch.object(Attempt, "end", unless_killed), patch.object(outcome.Command, "run", self.work)
        with patched[0], patched[1], suppress(Killed):
            work(self.run)

    def apply(self, step: str) -> None:
        match step:
            case "message":
                self.deliver()
            case "death":  # The worker notices that a process of its pool has died.
                record_death(str(self.run.pk), 0, Death(WORKER, "process_died", "signal 9"))
            case "silence":
                silence(self.run)
        self.check()

    def check(self) -> None:
        self.run.refresh_from_db()
        failures = [ending for ending in self.ended if ending in FAILURES]
        assert self.ended.count("succeed") <= 1
        assert len(failures) <= MAX_FAILURES
        if self.run.status == Status.FAILED:
            assert len(failures) == MAX_FAILURES
        assert (self.run.status == Status.SUCCEEDED) is ("succeed" in self.ended)


@settings(max_examples=scaled(15))
@given(
    endings=st.lists(st.sampled_from(["raise", "interrupt", "die"]), max_size=6),
    steps=st.lists(st.sampled_from(["message", "death", "silence"]), max_size=14),
)
def test_any_order(endings: list[str], steps: list[str]) -> None:
    """Whatever happens, redeliveries end the run: succeeded once, or failed after all of its retries."""
    world = World(endings)
    for step in steps:
        world.apply(step)
    for _ in range(len(endings) + 2):
        world.apply("silence")
        world.apply("message")

    assert world.run.is_finished
    assert JobRun.objects.filter(pk=world.run.pk, tasks__finished_at=None).count() == 0
