"""Two executions of the same run, with any number of tasks, in any order of starts, ends, deaths and retries."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import pytest
from django.core.management import call_command
from django.db import connections
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from cloudrun_jobs import environ
from cloudrun_jobs.environ import CloudRunTask
from cloudrun_jobs.execution import locking, runner
from cloudrun_jobs.execution.attempt import Attempt
from cloudrun_jobs.execution.heartbeat import Heartbeat
from cloudrun_jobs.locks import local
from cloudrun_jobs.locks.base import Grant
from cloudrun_jobs.locks.local import LocalLocks
from cloudrun_jobs.models import JobRun, Status
from tests.examples import scaled
from tests.jobs.management.commands import outcome
from tests.runs.conftest import request
from tests.servers.fixtures import add_database
from tests.servers.routing import forget, records_in

STEP_TIMEOUT = 60.0  # seconds
RECORD = "the record"
ATTEMPTS = outcome.Command.max_retries + 1

_this = threading.local()


class Killed(BaseException):
    """The process is killed: it does nothing more."""


@dataclass(eq=False)
class Process:
    """A container, in a thread that stops before and after each step that other processes can see."""

    task: CloudRunTask
    fails: bool = False
    works: bool = False  # It is in run().
    has_worked: bool = False
    is_dead: bool = False
    is_over: bool = False
    code: int | None = None
    at: str = "start"
    _go: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    _stopped: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))

    @property
    def has_recorded(self) -> bool:
        """Return True if it has recorded its success or skip. A process that `fails` does so in run() alone."""
        return self.at == f"after {RECORD}" and not (self.fails and self.has_worked)

    def start(self) -> None:
        threading.Thread(target=self._run, daemon=True).start()
        self.wait()

    def step(self) -> None:
        """Let the process go on to its next stop."""
        self._go.release()
        self.wait()

    def go(self) -> None:
        """Let the process go on until it works, waits or ends."""
        self.step()
        while not self.is_over and self.at not in {"in run()", "waiting"}:
            self.step()

    def kill(self) -> None:
        self.is_dead = True
        self.step()

    def wait(self) -> None:
        assert self._stopped.acquire(timeout=STEP_TIMEOUT), f"{self.task} hangs at {self.at}"

    def stop(self, at: str) -> None:
        if self.is_dead:
            return
        self.at = at
        self._stopped.release()
        self._go.acquire()
        if self.is_dead:
            raise Killed

    def _run(self) -> None:
        _this.process = self
        self.code = 1
        try:
            call_command(outcome.Command(), "none")
            self.code = int(self.is_dead)
        except (Exception, Killed):  # noqa: BLE001  (as the interpreter ends for any)
            pass
        finally:
            connections.close_all()  # This thread's.
            self.is_over = True
            self._stopped.release()


def stop(at: str) -> None:
    """Stop the process of this thread, unless the thread is a test's or renews a lease."""
    if process := getattr(_this, "process", None):
        process.stop(at)


def is_dead() -> bool:
    process = getattr(_this, "process", None)
    return process is not None and process.is_dead


class Locks(LocalLocks):
    """Locks of which a dead process releases none."""

    def acquire(self, *args: Any) -> Any:
        stop("before the lock")
        answer = super().acquire(*args)
        stop("after the lock")
        return answer

    def release(self, grant: Grant) -> bool:
        with suppress(Killed):  # The other leases have to be released too, or they would be renewed.
            stop("before the release")
        return not is_dead() and super().release(grant)


def stopping(work: Callable[..., None], name: str) -> Callable[..., None]:
    """Return `work` with a stop before and after it, at which the process may die."""

    def call(*args: Any) -> None:
        stop(f"before {name}")
        if not is_dead():
            work(*args)
        stop(f"after {name}")

    return call


def work(self: outcome.Command, **options: Any) -> int:
    process: Process = _this.process
    process.works = process.has_worked = True
    try:
        stop("in run()")
        if process.fails:
            raise ValueError
        return process.task.index
    finally:
        process.works = False


@pytest.fixture(scope="module")
def fast_sqlite(tmp_path_factory: pytest.TempPathFactory, django_db_setup: None, django_db_blocker: Any) -> str:
    """A database that does not wait for the disk."""
    options = {"transaction_mode": "IMMEDIATE", "init_command": "PRAGMA synchronous=OFF"}
    name = str(tmp_path_factory.mktemp("interleavings") / "records.sqlite3")
    with django_db_blocker.unblock():
        settings = {"ENGINE": "django.db.backends.sqlite3", "NAME": name, "OPTIONS": options}
        return add_database("fast_sqlite", settings)


@pytest.fixture(autouse=True)
def database(fast_sqlite: str, settings: Any, django_db_blocker: Any) -> Iterator[str]:
    with records_in(fast_sqlite, settings, django_db_blocker):
        yield fast_sqlite


@pytest.fixture(autouse=True)
def processes(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make threads behave as containers do."""
    settings.CLOUDRUN_JOBS = {"ENVIRONMENT": "test", "LOCKS": {"BACKEND": f"{__name__}.Locks"}}
    monkeypatch.setattr(environ, "current_task", lambda: getattr(_this, "process", None) and _this.process.task)
    monkeypatch.setattr(runner, "is_nested", lambda: False)
    monkeypatch.setattr(locking, "_sleep", lambda job, seconds: stop("waiting"))
    monkeypatch.setattr(Heartbeat, "start", lambda *args: None)
    monkeypatch.setattr(Attempt, "_record", stopping(Attempt._record, RECORD))
    monkeypatch.setattr(Attempt, "_record_decision", stopping(Attempt._record_decision, "the decision"))
    monkeypatch.setattr(outcome.Command, "run", work)


@dataclass
class World:
    """The processes of two executions, and what Cloud Run does with them."""

    scope: str
    count: int
    processes: list[Process] = field(default_factory=list)

    def __post_init__(self) -> None:
        forget(JobRun.objects.db)
        local.clear()
        requested = str(request("outcome").pk)
        self.executions = {"outcome-test-a": requested, "outcome-test-b": ""}  # The latter from the console.

    def live(self, execution: str = "") -> list[Process]:
        return [p for p in self.processes if not p.is_over and p.task.execution in (execution or self.executions)]

    def last(self, execution: str, index: int) -> Process | None:
        found = [p for p in self.processes if (p.task.execution, p.task.index) == (execution, index)]
        return found[-1] if found else None

    def startable(self) -> list[tuple[str, int, int]]:
        """Return the next attempts that Cloud Run may start: execution, index, attempt."""
        found = []
        for execution in self.executions:
            for index in range(self.count):
                last = self.last(execution, index)
                attempt = last.task.attempt + 1 if last else 0
                if not last or (last.is_over and last.code and attempt < ATTEMPTS):
                    found.append((execution, index, attempt))
        return found

    def start(self, execution: str, index: int, attempt: int, *, fails: bool = False) -> None:
        run_id = self.executions[execution]
        task = CloudRunTask("outcome-test", execution, index, attempt, self.count, run_id)
        self.processes.append(Process(task, fails=fails))
        self.processes[-1].start()

    def holds(self, execution: str) -> bool:
        return any(leased.owner.holder == execution for leased in local._leases.values())

    def expire(self, execution: str) -> None:
        """End the leases of an execution none of whose processes lives."""
        for key in [key for key, leased in local._leases.items() if leased.owner.holder == execution]:
            del local._leases[key]

    def idle(self) -> list[str]:
        return [execution for execution in self.executions if not self.live(execution)]

    def finish(self) -> None:
        """Start all that is left, and let all processes end."""
        for _ in range(500):
            for start in self.startable():
                self.start(*start)
            for process in self.live():
                process.step()
                self.check_exclusion()
            for execution in self.idle():
                self.expire(execution)
            if not self.live() and not self.startable():
                return
        raise AssertionError("the processes do not end")

    def check_exclusion(self) -> None:
        """The lock admits one execution at a time; with `lock_scope = "task"`, one for each task."""
        working = [p.task for p in self.processes if p.works]
        shared = self.scope == "execution"
        for task in working:
            same = [other for other in working if shared or other.index == task.index]
            assert {other.execution for other in same} == {task.execution}

    def check(self) -> None:
        assert not local._leases, "locks outlive their executions"
        for execution in self.executions:
            self.check_run(JobRun.objects.get(execution=execution))

    def check_run(self, run: JobRun) -> None:
        mine = [p for p in self.processes if p.task.execution == run.execution]
        last = [self.last(run.execution, index) for index in range(self.count)]
        groups = (
            [mine]
            if self.scope == "execution"
            else [[p for p in mine if p.task.index == index] for index in range(self.count)]
        )
        for group in groups:
            skipped = [p for p in group if p.code == 0 and not p.has_worked and not _repeats(p, group)]
            assert not (skipped and any(p.has_worked for p in group)), "worked and was skipped"
        done = [p for p in last if p.code == 0]
        worked = {p.task.index for p in mine if p.has_worked}
        if len(done) < self.count:
            # A killed process records nothing: `reconcile` ends its run. It may be killed after its record too.
            has_recorded = any(p.code and p.has_recorded for p in last)
            assert run.status in {Status.FAILED, Status.RUNNING} or has_recorded
        elif worked:
            assert run.status == Status.SUCCEEDED
            assert (run.result if self.count > 1 else [run.result]) == [
                index if index in worked else None for index in range(self.count)
            ]
            assert len(worked) == self.count or self.scope == "task"
        else:
            assert run.status == Status.SKIPPED


def _repeats(process: Process, group: list[Process]) -> bool:
    """Return True if an earlier attempt of the task recorded its success or skip, and was killed afterwards."""
    earlier = [p for p in group if p.task.index == process.task.index and p.task.attempt < process.task.attempt]
    return any(p.has_recorded for p in earlier)


@pytest.mark.parametrize("scope", ["execution", "task"])
def test_all_tasks_work_or_all_are_skipped(scope: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the order, no run is a mixture, no two executions work at once, and no lock is left."""
    monkeypatch.setattr(outcome.Command, "lock_scope", scope, raising=False)

    @settings(
        max_examples=scaled(40),
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.explicit, Phase.generate, Phase.shrink],
    )
    @given(st.integers(1, 3), st.data())
    def check(count: int, data: st.DataObject) -> None:
        world = World(scope, count)
        try:
            for _ in range(data.draw(st.integers(0, 40), label="steps")):
                choose(world, data)
                world.check_exclusion()
        finally:
            world.finish()
        world.check()

    check()


def test_a_task_that_records_its_skip_and_is_killed_then() -> None:
    """A process that does not reach run() does not fail in it: its run is skipped. The search once found this."""
    world = World("execution", 3)
    world.start("outcome-test-a", 0, 0)
    world.processes[0].go()
    for start in [(0, 0), (1, 0)]:
        world.start("outcome-test-b", *start)
        world.processes[-1].go()
    for attempt in range(ATTEMPTS):
        world.start("outcome-test-b", 2, attempt, fails=True)
        killed = world.processes[-1]
        if attempt == ATTEMPTS - 1:
            killed.step()
        killed.kill()
    world.finish()

    assert (killed.at, killed.code) == (f"after {RECORD}", 1)
    world.check()


def choose(world: World, data: st.DataObject) -> None:
    """Do one of the things that can happen next."""
    steps: list[tuple[Any, ...]] = [("start", *start) for start in world.startable()]
    alive = [n for n, process in enumerate(world.processes) if not process.is_over]
    steps += [(action, n) for action in ("go", "go", "step", "step", "kill") for n in alive]
    steps += [("expire", execution) for execution in world.idle() if world.holds(execution)] * 2
    action, *values = data.draw(st.sampled_from(steps or [("nothing",)]))
    if action == "start":
        world.start(*values, fails=data.draw(st.booleans(), label="fails"))
    elif action == "expire":
        world.expire(*values)
    elif values:
        getattr(world.processes[values[0]], action)()
