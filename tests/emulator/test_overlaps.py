"""Ticks of Cloud Scheduler that fall due while an earlier one is delivered, without a server."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from unittest.mock import Mock
from zoneinfo import ZoneInfo

import pytest
from google.cloud import scheduler_v1
from hypothesis import given, settings
from hypothesis import strategies as st

from cloudrun_jobs.emulator.clock import Clock
from cloudrun_jobs.emulator.http_delivery import Result
from cloudrun_jobs.emulator.scheduler import cron
from cloudrun_jobs.emulator.scheduler.jobs import ScheduledJobs
from tests.emulator.cloud import PLACE

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
NAME = f"{PLACE}/jobs/tick"
MINUTE = timedelta(minutes=1)
BACKOFF = timedelta(seconds=90)


@dataclass
class Attempt:
    """An attempt to come: how long it takes, its HTTP status, and what is called while it is in flight."""

    minutes: int = 0
    status: int = 200
    action: str = ""


@dataclass
class Scene:
    """A scheduler whose target takes the time of the clock that the plan says."""

    plan: list[Attempt] = field(default_factory=list)
    schedule: str = "*/5 * * * *"
    retries: int = 0

    def __post_init__(self):
        self.clock = Clock()
        self.clock.freeze(NOON)
        self.saved = {}
        self.attempts, self.running, self.times, self.resumed = [], 0, [], []
        self.scheduler = self.new_scheduler()
        config = {"retry_count": self.retries, "min_backoff_duration": BACKOFF, "max_backoff_duration": BACKOFF}
        target = {"uri": "http://localhost/"}
        self.job = scheduler_v1.Job(name=NAME, schedule=self.schedule, http_target=target, retry_config=config)
        self.scheduler.create(scheduler_v1.CreateJobRequest(parent=PLACE, job=self.job))
        self.enabled = [[NOON, None]]

    def new_scheduler(self):
        return ScheduledJobs(self.clock, self, Mock(), self.save)

    def save(self, job, deliveries):
        self.saved[job.name] = job, deliveries

    def deliver(self, _name, _target, _url, headers, _deadline):
        planned = self.plan.pop(0) if self.plan else Attempt()
        start = self.clock.now()
        self.running += 1
        assert self.running == 1
        if planned.action:
            self.call(planned.action)
        self.times.append(headers.get("X-CloudScheduler-ScheduleTime", "")[11:16])
        self.clock.advance(planned.minutes * MINUTE)
        self.running -= 1
        self.attempts.append((start, self.clock.now(), planned.status))
        return Result.of(planned.status)

    def advance(self, minutes):
        self.clock.advance(minutes * MINUTE)

    def get(self):
        return self.scheduler.get(scheduler_v1.GetJobRequest(name=NAME))

    def call(self, action):
        """Call a method of the API, if the job's state permits it."""
        enabled = self.get().state == scheduler_v1.Job.State.ENABLED
        if action == "pause" and enabled:
            self.scheduler.pause(scheduler_v1.PauseJobRequest(name=NAME))
            self.enabled[-1][1] = self.clock.now()
        elif action == "resume" and not enabled:
            self.scheduler.resume(scheduler_v1.ResumeJobRequest(name=NAME))
            self.enabled.append([self.clock.now(), None])
        elif action == "update":
            self.scheduler.update(scheduler_v1.UpdateJobRequest(job=self.job))

    def starts(self):
        return [f"{start:%H:%M:%S}".removesuffix(":00") for start, _, _ in self.attempts]


def test_a_running_attempt_delays_the_ticks_that_fall_due():
    """Three ticks fall due during an attempt of 16 minutes; one start follows its end, for the first of them."""
    scene = Scene([Attempt(minutes=16)])
    scene.advance(30)

    assert scene.starts() == ["12:05", "12:21", "12:25", "12:30"]
    assert scene.times == ["12:05", "12:10", "12:25", "12:30"]


def test_ticks_during_retries_are_skipped():
    """Ticks that fall due while a retry is waited for are not delivered: the retry follows them."""
    scene = Scene([Attempt(status=500)] * 2, schedule="* * * * *", retries=2)
    scene.advance(4)

    assert scene.starts() == ["12:01", "12:02:30", "12:04"]
    assert scene.times == ["12:01", "12:01", "12:01"]


def test_a_failed_attempt_that_is_retried_delays_no_tick():
    """A tick that fell due during an attempt that failed is skipped: the retry follows it."""
    scene = Scene([Attempt(minutes=6, status=500)], retries=1)
    scene.advance(13)

    assert scene.starts() == ["12:05", "12:12:30"]
    assert scene.times == ["12:05", "12:05"]


def test_a_retry_that_is_running_delays_a_tick():
    """A tick that falls due while the last retry is in flight starts when it ends, even if it fails."""
    scene = Scene([Attempt(status=500), Attempt(minutes=7, status=500)], retries=1)
    scene.advance(14)

    assert scene.starts() == ["12:05", "12:06:30", "12:13:30"]
    assert scene.times == ["12:05", "12:05", "12:10"]


def test_schedule_time_shows_a_pending_retry():
    """While a retry is pending, `schedule_time` is its time, then that of the next tick."""
    scene = Scene([Attempt(status=500)], retries=1)
    scene.advance(5)

    assert scene.get().schedule_time == NOON + 5 * MINUTE + BACKOFF
    scene.advance(2)
    assert scene.get().schedule_time == NOON + 10 * MINUTE


def test_last_attempt_time_is_the_start():
    """`last_attempt_time` is the start of the attempt, also in flight; the status is the last one's."""
    scene = Scene([Attempt(status=500), Attempt(minutes=3, action="look")])
    seen = []
    scene.call = lambda _: seen.append((scene.get().last_attempt_time, scene.get().status.code))
    scene.advance(14)

    assert seen == [(NOON + 10 * MINUTE, 13)]
    assert (scene.get().last_attempt_time, scene.get().status.code) == (NOON + 10 * MINUTE, 0)


@pytest.mark.parametrize(
    ("action", "starts"),
    [("pause", ["12:05"]), ("update", ["12:05", "12:12", "12:15"])],
)
def test_a_change_while_an_attempt_is_in_flight(action, starts):
    """A pause drops the tick that is delayed later; an update does not."""
    scene = Scene([Attempt(minutes=7, action=action)])
    scene.advance(15)

    assert scene.starts() == starts


def test_a_pause_cancels_a_pending_retry():
    """A paused job is not retried; when it is resumed, it continues with the next tick."""
    scene = Scene([Attempt(status=500)], retries=1)
    scene.advance(6)
    scene.call("pause")

    assert "schedule_time" not in scene.get()
    scene.advance(3)
    scene.call("resume")
    scene.advance(2)
    assert scene.starts() == ["12:05", "12:10"]


def test_a_deleted_job_is_not_saved_by_its_attempt():
    """An attempt that ends after its job was deleted changes nothing of a new job with the same name."""
    scene = Scene([Attempt(minutes=1, status=500, action="recreate")], retries=1)

    def recreate(_):
        scene.scheduler.delete(scheduler_v1.DeleteJobRequest(name=NAME))
        scene.scheduler.create(scheduler_v1.CreateJobRequest(parent=PLACE, job=scene.job))

    scene.call = recreate
    scene.advance(9)

    assert scene.starts() == ["12:05"]
    assert scene.get().status.code == 0
    assert "last_attempt_time" not in scene.saved[NAME][0]


def test_an_interval_is_counted_from_the_end():
    """A schedule "every 5 minutes" has no tick while an attempt is in flight."""
    scene = Scene([Attempt(minutes=7)], schedule="every 5 minutes")
    scene.advance(20)

    assert scene.starts() == ["12:05", "12:17"]


def test_a_pending_retry_survives_a_restart():
    """A retry that was pending when the emulator stopped is made at its time, and counts the earlier ones."""
    scene = Scene([Attempt(status=500)] * 3, retries=2)
    scene.advance(5)
    job, pending = scene.saved[NAME]
    scene.scheduler.delete(scheduler_v1.DeleteJobRequest(name=NAME))
    scene.scheduler = scene.new_scheduler()
    scene.scheduler.restore(job, pending)
    scene.advance(4)

    assert scene.starts() == ["12:05", "12:06:30", "12:08"]
    assert scene.times == ["12:05"] * 3


def test_an_interrupted_attempt_is_made_again():
    """An attempt that was in flight when the emulator stopped is made again at the next start."""
    scene = Scene([Attempt(action="stop")])
    seen = []
    scene.call = lambda _: seen.append(scene.saved[NAME])
    scene.advance(5)
    scene.scheduler.delete(scheduler_v1.DeleteJobRequest(name=NAME))
    scene.scheduler = scene.new_scheduler()
    scene.scheduler.restore(*seen[0])
    scene.advance(1)

    assert scene.times == ["12:05", "12:05"]


attempts = st.builds(
    Attempt,
    st.integers(0, 17),
    st.sampled_from([200, 500]),
    st.sampled_from(["", "", "pause", "resume", "update"]),
)
steps = st.one_of(st.integers(1, 20), st.sampled_from(["pause", "resume", "update"]))


@settings(max_examples=40, deadline=None)
@given(
    st.lists(attempts, max_size=8),
    st.lists(steps, max_size=8),
    st.sampled_from(["*/5 * * * *", "* * * * *", "*/20 * * * *"]),
    st.integers(0, 3),
)
def test_every_tick_is_followed_by_a_start(plan, steps, schedule, retries):
    """No two attempts overlap, and a start follows every tick as soon as the attempts before it permit."""
    scene = Scene(plan, schedule, retries)
    for step in steps:
        scene.advance(step) if isinstance(step, int) else scene.call(step)
    scene.plan.clear()
    scene.advance(21)

    assert [tick for tick in ticks(scene, schedule) if not is_followed(scene, tick)] == []


def ticks(scene, schedule):
    """Yield the ticks that fell due while the job was enabled, except those before a pause that dropped them."""
    calendar = cron.parse(schedule, ZoneInfo("UTC"))
    for begin, end in scene.enabled:
        tick = calendar.next_after(begin)
        while tick < (end or scene.clock.now() - MINUTE):
            yield tick, end
            tick = calendar.next_after(tick)


def is_followed(scene, tick):
    """Return True if a start follows the tick at once, after the attempt in flight, or as a retry."""
    due, paused = tick
    flying = [(end, status) for start, end, status in scene.attempts if start < due < end]
    earlier = [(end, status) for start, end, status in scene.attempts if end <= due]
    free, status = (flying or earlier or [(due, 200)])[-1]
    latest = max(due, free) + (BACKOFF if status != 200 else timedelta(0))
    if paused is not None and paused <= latest:
        return True
    return any(due <= start <= latest for start, _, _ in scene.attempts)
