"""The methods of Cloud Tasks, and the dispatch of tasks when they are due."""

from __future__ import annotations

import json
import re
import secrets
import threading
from datetime import datetime, timedelta
from functools import partial
from itertools import takewhile
from typing import TYPE_CHECKING, Any

from google.cloud import tasks_v2 as api
from google.protobuf import empty_pb2

from cloudrun_jobs.emulator import field_masks, names
from cloudrun_jobs.emulator.cloud_tasks import validation
from cloudrun_jobs.emulator.cloud_tasks.queues import QueuedTask, State, TaskQueue
from cloudrun_jobs.emulator.engine.store import paginate
from cloudrun_jobs.emulator.errors import ServiceError, invalid

if TYPE_CHECKING:
    from collections.abc import Callable

    from cloudrun_jobs.emulator.clock import Clock
    from cloudrun_jobs.emulator.http_delivery import HttpDelivery
    from cloudrun_jobs.emulator.state import State as SavedState

# Each dispatch takes a thread of the clock, which the rest of the emulator needs too.
MAX_DISPATCHES_OF_QUEUE, MAX_DISPATCHES = 50, 150
MAX_TASK_PAGE, MAX_QUEUE_PAGE = 1000, 9800
TASK_RETENTION = timedelta(days=31)
# A name cannot be used again for so long.
TASK_NAME_COOLDOWN, QUEUE_NAME_COOLDOWN = timedelta(hours=24), timedelta(days=3)
QUEUE_NOT_FOUND = (
    "Queue does not exist. If you just created the queue, wait at least a minute for the queue to initialize."
)
NOT_FOUND = "Requested entity was not found."
STATE_FILTER = re.compile(r"state\s*[:=]\s*\"?(RUNNING|PAUSED|DISABLED)\"?", re.IGNORECASE)
OUTPUT_FIELDS = ("state", "purge_time")


class CloudTasks:
    def __init__(self, clock: Clock, delivery: HttpDelivery, drop_policy: Callable[[str], None]) -> None:
        self._clock = clock
        self._delivery = delivery
        self._drop_policy = drop_policy
        self._lock = threading.RLock()
        self.queues: dict[str, TaskQueue] = {}
        self._running = 0  # Dispatches of all queues.
        # When each name can be used again, in the order of the deletions.
        self._task_names: dict[str, datetime] = {}
        self._queue_names: dict[str, datetime] = {}
        self._state: SavedState | None = None

    def restore(self, state: SavedState) -> None:
        """Restore the queues and tasks of an earlier emulator, and save changes from now on."""
        now = self._clock.now()
        for queue in map(api.Queue.deserialize, state.load("queue")):
            self.queues[queue.name] = TaskQueue(queue, now)
        for kind, free_names in (("task name", self._task_names), ("queue name", self._queue_names)):
            for body in state.load(kind):
                name, until = json.loads(body)
                free_names[name] = datetime.fromisoformat(until)
        self._state = state
        for queued in map(QueuedTask.decode, state.load("task")):
            queue = self.queues[names.parent(queued.task.name)]
            self._add(queue, queued)
            self._set_timer(queue, queued)

    # Queues

    def create_queue(self, request: api.CreateQueueRequest) -> api.Queue:
        parent = validation.check_parent(request.parent)
        name = validation.check_queue_name(request.queue.name)
        if not name.startswith(f"{parent}/"):
            raise invalid(f"{name} must begin with {parent}.")
        with self._lock:
            if name in self.queues:
                raise ServiceError("ALREADY_EXISTS", "Queue already exists")
            return self._new_queue(request.queue)

    def get_queue(self, request: api.GetQueueRequest) -> api.Queue:
        with self._lock:
            return api.Queue(self._queue(request.name).queue)

    def list_queues(self, request: api.ListQueuesRequest) -> api.ListQueuesResponse:
        pattern = f"{validation.check_parent(request.parent)}/queues/-"
        state = _state_of(request.filter)
        with self._lock:
            found = [self.queues[name].queue for name in sorted(self.queues) if names.matches(pattern, name)]
            found = [api.Queue(queue) for queue in found if state in (None, queue.state.name)]
        page, token = paginate(found, request.page_size, request.page_token, MAX_QUEUE_PAGE)
        return api.ListQueuesResponse(queues=page, next_page_token=token)

    def update_queue(self, request: api.UpdateQueueRequest) -> api.Queue:
        """Update a queue, or create it if it does not exist."""
        name = validation.check_queue_name(request.queue.name)
        with self._lock:
            existing = self.queues.get(name)
            if existing is None:
                return self._new_queue(request.queue)
            masked = field_masks.updated(existing.queue, request.queue, request.update_mask.paths)
            queue = validation.queue_with_defaults(masked)
            for field in OUTPUT_FIELDS:
                setattr(queue, field, getattr(existing.queue, field))
            existing.queue = queue
            self._save_queue(existing)
            self._clock.call_soon(lambda: self._pump(existing))
            return api.Queue(queue)

    def delete_queue(self, request: api.DeleteQueueRequest) -> Any:
        name = validation.check_queue_name(request.name)
        with self._lock:
            queue = self.queues.pop(name, None)
            if queue is None:
                raise ServiceError("NOT_FOUND", NOT_FOUND)
            self._drop_all(queue)
            self._take(self._queue_names, "queue name", name, QUEUE_NAME_COOLDOWN)
            self._drop_policy(name)
            self._remove_row(name)
        return empty_pb2.Empty()

    def pause_queue(self, request: api.PauseQueueRequest) -> api.Queue:
        return self._set_state(request.name, State.PAUSED)

    def resume_queue(self, request: api.ResumeQueueRequest) -> api.Queue:
        return self._set_state(request.name, State.RUNNING)

    def purge_queue(self, request: api.PurgeQueueRequest) -> api.Queue:
        with self._lock:
            queue = self._queue(request.name)
            self._drop_all(queue)
            queue.queue.purge_time = self._clock.now()
            self._save_queue(queue)
            return api.Queue(queue.queue)

    def check_exists(self, name: str) -> None:
        with self._lock:
            self._queue(name)

    # Tasks

    def create_task(self, request: api.CreateTaskRequest) -> api.Task:
        with self._lock:
            queue = self._queue(request.parent)
            task = validation.new_task(request.task, request.parent, self._clock.now(), _new_id)
            if task.name in queue.tasks:
                raise ServiceError("ALREADY_EXISTS", "Requested entity already exists")
            if self._is_taken(self._task_names, task.name):
                raise ServiceError(
                    "ALREADY_EXISTS",
                    "The task cannot be created because a task with this name existed too recently. For more "
                    "information about task de-duplication see "
                    f"{validation.REFERENCE}.tasks/create#body.request_body.FIELDS.task.",
                )
            queued = QueuedTask(task)
            self._add(queue, queued)
            self._schedule(queue, queued, task.schedule_time)
            return _view(task, request.response_view)

    def get_task(self, request: api.GetTaskRequest) -> api.Task:
        with self._lock:
            return _view(self._task(request.name)[1].task, request.response_view)

    def list_tasks(self, request: api.ListTasksRequest) -> api.ListTasksResponse:
        with self._lock:
            found = [queued.task for queued in self._queue(request.parent).tasks.values()]
            page, token = paginate(found, request.page_size, request.page_token, MAX_TASK_PAGE)
            views = [_view(task, request.response_view) for task in page]
        return api.ListTasksResponse(tasks=views, next_page_token=token)

    def delete_task(self, request: api.DeleteTaskRequest) -> Any:
        with self._lock:
            self._drop(*self._task(request.name))
        return empty_pb2.Empty()

    def run_task(self, request: api.RunTaskRequest) -> api.Task:
        """Dispatch a task now, even if the queue is paused or at its limits; do not wait for the response."""
        with self._lock:
            queue, queued = self._task(request.name)
            self._unschedule(queue, queued)
            queued.task.schedule_time = self._clock.now()
            self._save_task(queued)
            self._clock.call_soon(lambda: self._attempt(queue, queued))
            return _view(queued.task, request.response_view)

    # Dispatch

    def _add(self, queue: TaskQueue, queued: QueuedTask) -> None:
        queue.tasks[queued.task.name] = queued
        expiry = queued.task.create_time + TASK_RETENTION
        queued.expiry = self._clock.call_at(expiry, lambda: self._drop(queue, queued))

    def _schedule(self, queue: TaskQueue, queued: QueuedTask, at: datetime) -> None:
        self._unschedule(queue, queued)
        queued.task.schedule_time = at
        self._save_task(queued)
        if at > self._clock.now():
            self._set_timer(queue, queued)
        else:
            queue.ready[queued] = None
            self._clock.call_soon(lambda: self._pump(queue))

    def _set_timer(self, queue: TaskQueue, queued: QueuedTask) -> None:
        queued.timer = self._clock.call_at(queued.task.schedule_time, lambda: self._become_ready(queue, queued))

    def _unschedule(self, queue: TaskQueue, queued: QueuedTask) -> None:
        if queued.timer is not None:
            queued.timer.cancel()
            queued.timer = None
        queue.ready.pop(queued, None)

    def _become_ready(self, queue: TaskQueue, queued: QueuedTask) -> None:
        with self._lock:
            # The timer may have fired while it was cancelled.
            if queued.timer is None or not self._is_queued(queue, queued):
                return
            queued.timer = None
            queue.ready[queued] = None
        self._pump(queue)

    def _pump(self, queue: TaskQueue) -> None:
        """Dispatch the tasks that are ready, one by one; others start meanwhile if they may."""
        while True:
            with self._lock:
                queued = self._next(queue)
                if queued is None:
                    return
                self._count(queue, 1)
                if self._may_dispatch(queue):
                    self._clock.call_later(0, lambda: self._pump(queue))
            try:
                self._attempt(queue, queued)
            finally:
                is_handed_over = self._finish(queue)
            if is_handed_over:
                return

    def _finish(self, queue: TaskQueue) -> bool:
        """Count a dispatch that ended; return True if the queues that waited for it take turns."""
        with self._lock:
            was_full = self._running >= MAX_DISPATCHES
            self._count(queue, -1)
            if was_full:
                by_running = sorted(self.queues.values(), key=lambda each: each.running)
                for each in filter(self._may_dispatch, by_running):
                    self._clock.call_soon(partial(self._pump, each))
        return was_full

    def _count(self, queue: TaskQueue, change: int) -> None:
        queue.running += change
        self._running += change

    def _may_dispatch(self, queue: TaskQueue) -> bool:
        is_full = self._running >= MAX_DISPATCHES or self._delivery.closed
        return not is_full and queue.may_dispatch(MAX_DISPATCHES_OF_QUEUE)

    def _next(self, queue: TaskQueue) -> QueuedTask | None:
        """Take the next task that may be dispatched now, or set the timer for the next token."""
        if not self._may_dispatch(queue):
            return None
        wait = queue.seconds_to_token(self._clock.now())
        if wait > 0:
            if queue.timer is not None:
                queue.timer.cancel()
            # A microsecond more, the resolution of the clock.
            queue.timer = self._clock.call_later(wait + 1e-6, lambda: self._pump(queue))
            return None
        queue.tokens -= 1
        return queue.ready.popitem(last=False)[0]

    def _attempt(self, queue: TaskQueue, queued: QueuedTask) -> None:
        with self._lock:
            if self._delivery.closed or not self._is_queued(queue, queued):
                return
            queued.begin(self._clock.now())
            self._save_task(queued)
            task, headers = api.Task(queued.task), queued.headers()
        target = task.http_request
        headers["User-Agent"] = validation.USER_AGENT
        result = self._delivery.deliver(task.name, target, target.url, headers, task.dispatch_deadline)
        with self._lock:
            if result is None or not self._is_queued(queue, queued):
                return
            now = self._clock.now()
            queued.end(result, now)
            retry = None if result.acknowledged else queue.retry_at(queued, now)
            if retry is None:
                self._drop(queue, queued)
            else:
                self._schedule(queue, queued, retry)

    def _is_queued(self, queue: TaskQueue, queued: QueuedTask) -> bool:
        return queue.tasks.get(queued.task.name) is queued

    # State

    def _new_queue(self, given: api.Queue) -> api.Queue:
        if self._is_taken(self._queue_names, given.name):
            raise ServiceError(
                "FAILED_PRECONDITION",
                "The queue cannot be created because a queue with this name existed too recently.",
            )
        queue = validation.queue_with_defaults(given)
        queue.state = State(State.RUNNING)
        api.Queue.pb(queue).ClearField("purge_time")
        added = self.queues[queue.name] = TaskQueue(queue, self._clock.now())
        self._save_queue(added)
        return api.Queue(queue)

    def _set_state(self, name: str, state: int) -> api.Queue:
        with self._lock:
            queue = self._queue(name)
            queue.queue.state = State(state)
            self._save_queue(queue)
            self._clock.call_soon(lambda: self._pump(queue))
            return api.Queue(queue.queue)

    def _queue(self, name: str) -> TaskQueue:
        queue = self.queues.get(validation.check_queue_name(name))
        if queue is None:
            raise ServiceError("NOT_FOUND", QUEUE_NOT_FOUND)
        return queue

    def _task(self, name: str) -> tuple[TaskQueue, QueuedTask]:
        queue = self.queues.get(names.parent(validation.check_task_name(name)))
        queued = None if queue is None else queue.tasks.get(name)
        if queue is not None and queued is not None:
            return queue, queued
        if self._is_taken(self._task_names, name):
            raise ServiceError(
                "NOT_FOUND",
                "The task no longer exists, though a task with this name existed recently. "
                "The task either successfully completed or was deleted.",
            )
        raise ServiceError("NOT_FOUND", NOT_FOUND)

    def _drop_all(self, queue: TaskQueue) -> None:
        for queued in list(queue.tasks.values()):
            self._drop(queue, queued)

    def _drop(self, queue: TaskQueue, queued: QueuedTask) -> None:
        """Remove a task that is done, deleted or too old."""
        with self._lock:
            if not self._is_queued(queue, queued):
                return
            self._unschedule(queue, queued)
            if queued.expiry is not None:
                queued.expiry.cancel()
            name = queued.task.name
            del queue.tasks[name]
            self._take(self._task_names, "task name", name, TASK_NAME_COOLDOWN)
            self._remove_row(name)

    def _is_taken(self, taken: dict[str, datetime], name: str) -> bool:
        return name in taken and self._clock.now() < taken[name]

    def _take(self, taken: dict[str, datetime], kind: str, name: str, cooldown: timedelta) -> None:
        """Keep a name from being used again for some time, and forget the names that can be."""
        now = self._clock.now()
        for earlier in list(takewhile(lambda earlier: taken[earlier] <= now, taken)):
            del taken[earlier]
            self._remove_row(f"{kind}:{earlier}")
        taken[name] = now + cooldown
        if self._state is not None:
            self._state.save(kind, f"{kind}:{name}", json.dumps([name, taken[name].isoformat()]).encode())

    def _save_queue(self, queue: TaskQueue) -> None:
        if self._state is not None:
            self._state.save("queue", queue.queue.name, api.Queue.serialize(queue.queue))

    def _save_task(self, queued: QueuedTask) -> None:
        if self._state is not None:
            self._state.save("task", queued.task.name, queued.encode())

    def _remove_row(self, name: str) -> None:
        if self._state is not None:
            self._state.remove(name)


def _view(task: api.Task, view: Any) -> api.Task:
    """Return a task with or without its body."""
    shown = api.Task(task)
    shown.view = api.Task.View(api.Task.View.FULL if view == api.Task.View.FULL else api.Task.View.BASIC)
    if shown.view == api.Task.View.BASIC:
        shown.http_request.body = b""
    return shown


def _state_of(expression: str) -> str | None:
    if not expression.strip():
        return None
    match = STATE_FILTER.fullmatch(expression.strip())
    if match is None:
        raise invalid(f"Invalid filter {expression!r}: the emulator supports only state, such as state: PAUSED.")
    return match[1].upper()


def _new_id() -> str:
    return str(10**19 + secrets.randbelow(9 * 10**19))
