"""A queue with its tasks: which of them is dispatched next, and when."""

from __future__ import annotations

import base64
import json
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from google.cloud import tasks_v2

from cloudrun_jobs.emulator.backoff import Backoff

if TYPE_CHECKING:
    from datetime import datetime

    from cloudrun_jobs.emulator.clock import Timer
    from cloudrun_jobs.emulator.http_delivery import Result

State = tasks_v2.Queue.State
UNLIMITED = -1  # Attempts.


@dataclass(slots=True, eq=False)
class QueuedTask:
    """A task that is not done."""

    task: tasks_v2.Task
    executions: int = 0  # Responses other than of 5xx.
    previous_response: int | None = None
    timer: Timer | None = None  # Of the next attempt.
    expiry: Timer | None = None

    def encode(self) -> bytes:
        message = base64.b64encode(tasks_v2.Task.serialize(self.task)).decode()
        return json.dumps([message, self.executions, self.previous_response]).encode()

    @classmethod
    def decode(cls, body: bytes) -> QueuedTask:
        message, executions, previous_response = json.loads(body)
        return cls(tasks_v2.Task.deserialize(base64.b64decode(message)), executions, previous_response)

    def begin(self, now: datetime) -> None:
        """Record the start of an attempt."""
        task = self.task
        task.dispatch_count += 1
        if task.dispatch_count == 1:
            task.first_attempt.dispatch_time = now
        task.last_attempt = tasks_v2.Attempt(schedule_time=task.schedule_time, dispatch_time=now)

    def end(self, result: Result, now: datetime) -> None:
        """Record the response to an attempt, or that there was none."""
        task = self.task
        if result.status:
            task.response_count += 1
            task.last_attempt.response_time = now
        if 0 < result.status < 500:
            self.executions += 1
        self.previous_response = result.http_status
        status = result.as_status()
        if status.code:
            status.message = f"{result.code}({status.code}): HTTP status code {result.http_status}"
        tasks_v2.Task.pb(task).last_attempt.response_status.CopyFrom(status)

    def headers(self) -> dict[str, str]:
        """Return the headers that Cloud Tasks adds to those of the task."""
        queue, _, task_id = self.task.name.rpartition("/tasks/")
        added = {
            "X-CloudTasks-QueueName": queue.rpartition("/")[2],
            "X-CloudTasks-TaskName": task_id,
            "X-CloudTasks-TaskRetryCount": str(self.task.dispatch_count - 1),
            "X-CloudTasks-TaskExecutionCount": str(self.executions),
            "X-CloudTasks-TaskETA": f"{self.task.schedule_time.timestamp():.6f}",
        }
        if self.previous_response is not None:
            added["X-CloudTasks-TaskPreviousResponse"] = str(self.previous_response)
            added["X-CloudTasks-TaskRetryReason"] = ""
        return added


@dataclass(slots=True, eq=False)
class TaskQueue:
    """A queue, the tasks in it, and its token bucket, which limits the rate of dispatches."""

    queue: tasks_v2.Queue
    filled: datetime  # When the bucket was last filled.
    tokens: float = 0.0
    tasks: dict[str, QueuedTask] = field(default_factory=dict)
    # Those that are due, in the order in which they became due.
    ready: OrderedDict[QueuedTask, None] = field(default_factory=OrderedDict)
    running: int = 0
    timer: Timer | None = None  # Of the next token.

    def __post_init__(self) -> None:
        self.tokens = float(self.queue.rate_limits.max_burst_size)

    def seconds_to_token(self, now: datetime) -> float:
        """Fill the bucket; return how long the next dispatch has to wait."""
        limits = self.queue.rate_limits
        rate = limits.max_dispatches_per_second
        passed = max((now - self.filled).total_seconds(), 0.0)
        self.tokens = min(self.tokens + passed * rate, float(limits.max_burst_size))
        self.filled = now
        return max(0.0, 1 - self.tokens) / rate

    def may_dispatch(self, most_at_once: int) -> bool:
        limit = min(self.queue.rate_limits.max_concurrent_dispatches, most_at_once)
        return self.queue.state == State.RUNNING and bool(self.ready) and self.running < limit

    def retry_at(self, queued: QueuedTask, now: datetime) -> datetime | None:
        """Return when a task whose attempt failed is retried; None if it has failed for good."""
        task = queued.task
        config = retry_config(self.queue, task)
        limits = []
        if config.max_attempts != UNLIMITED:
            limits.append(task.dispatch_count >= config.max_attempts)
        if config.max_retry_duration:
            limits.append(now - task.first_attempt.dispatch_time >= config.max_retry_duration)
        if limits and all(limits):
            return None
        backoff = Backoff(config.min_backoff, config.max_backoff, config.max_doublings)
        return now + backoff.wait(task.dispatch_count - 1)


def retry_config(queue: tasks_v2.Queue, task: tasks_v2.Task) -> tasks_v2.RetryConfig:
    """Return the settings for the retries of a task: its own, and those of the queue for what it does not set."""
    config = tasks_v2.RetryConfig(queue.retry_config)
    if "retry_config" in task:
        tasks_v2.RetryConfig.pb(config).MergeFrom(tasks_v2.RetryConfig.pb(task.retry_config))
    return config
