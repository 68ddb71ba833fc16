"""Send messages to Celery workers, and count the waiting ones."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from threading import Lock
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from celery.exceptions import QueueNotFound
from kombu.exceptions import KombuError
from kombu.pools import ProducerPool

from cloudrun_jobs.environ import REDUCE_VARIABLE
from cloudrun_jobs.exceptions import InvalidSettings, ServiceUnavailable
from cloudrun_jobs.models.runs import is_run_id

if TYPE_CHECKING:
    from cloudrun_jobs.backends.base import Request
    from cloudrun_jobs.backends.celery import CeleryBackend

TASK = "cloudrun_jobs.run"
#: The suffix of the task id of a message that only calls `reduce()`.
REDUCE_SUFFIX = ".reduce"
INDEX = re.compile("0|[1-9][0-9]{0,5}", re.ASCII)

# The time to clean up, between the soft and the hard time limit of a task; similar to Cloud Run's.
CLEANUP_SECONDS = 8

MAX_CONNECTIONS = 10  # Of a process.
INSPECT_SECONDS = 2.0  # How long workers may take to respond.

_pools: dict[tuple[int, str, float], Any] = {}
_lock = Lock()


def send(backend: CeleryBackend, request: Request, *, timeout: float, eta: datetime | None = None) -> str:
    """Send a message for each task of the request, and return the name of the execution.

    Raises `ServiceUnavailable`.
    """
    app, limit = backend.app, request.timeout
    # With a result, Celery would wait for the result backend first.
    options: dict[str, Any] = {"eta": eta, "serializer": "json", "retry": False, "ignore_result": True}
    if request.queue:
        options["queue"] = request.queue
    if limit is not None:
        options |= {"soft_time_limit": limit, "time_limit": limit + CLEANUP_SECONDS}
    with _producer(backend, app, timeout) as producer:
        for task_id in task_ids(request):
            try:
                app.send_task(TASK, (request.run_id,), task_id=task_id, producer=producer, **options)
            except QueueNotFound as error:
                message = f"The Celery app has no queue {request.queue!r}."
                raise InvalidSettings(message, hint="Add it to task_queues.") from error
    is_reduction = REDUCE_VARIABLE in request.extra_env
    return request.run_id + (REDUCE_SUFFIX if is_reduction else "")


def task_ids(request: Request) -> Iterator[str]:
    """Yield the ids of Celery's tasks: the run's id, or that with the index of each of several tasks."""
    if REDUCE_VARIABLE in request.extra_env:
        yield f"{request.run_id}{REDUCE_SUFFIX}"
    elif request.tasks == 1:
        yield request.run_id
    else:
        indexes = range(request.tasks) if request.indexes is None else request.indexes
        yield from (f"{request.run_id}.{index}" for index in indexes)


def parse_task_id(task_id: str) -> tuple[str, int | None] | None:
    """Return the run's id and the index of the task, None for `reduce()`; return None for another id."""
    run_id, _, suffix = task_id.partition(".")
    if not is_run_id(run_id):
        return None
    if not suffix or suffix == REDUCE_SUFFIX[1:]:
        return run_id, None if suffix else 0
    return (run_id, int(suffix)) if INDEX.fullmatch(suffix) else None


def revoke(backend: CeleryBackend, ids: list[str], *, timeout: float) -> None:
    """Have the workers drop these tasks, and send SIGTERM to the processes that run them.

    Raises `ServiceUnavailable`.
    """
    app = backend.app
    with _producer(backend, app, timeout) as producer:
        mailbox = app.control.mailbox
        # `app.control.revoke()` has sockets without a timeout, retries for ever, and expires after a second.
        producer.publish(
            {
                "method": "revoke",
                "arguments": {"task_id": ids, "terminate": True, "signal": "SIGTERM"},
                "destination": None,
                "pattern": None,
                "matcher": None,
            },
            exchange=mailbox.exchange.name,
            declare=[mailbox.exchange],
            headers={"clock": app.clock.forward(), "expires": 0},
            serializer="json",
            retry=False,
        )


def count_waiting(backend: CeleryBackend, queue: str, *, timeout: float) -> int:
    """Return the number of messages in the queue. Raises `ServiceUnavailable`."""
    app = backend.app
    with _producer(backend, app, timeout) as producer:
        try:
            declared = producer.channel.queue_declare(queue or app.conf.task_default_queue, passive=True)
        except producer.connection.channel_errors:
            return 0  # A queue without messages does not exist.
        return int(declared.message_count)


def listened_queues(backend: CeleryBackend, *, timeout: float) -> set[str]:
    """Return the names of the queues that responding workers listen to. Raises `ServiceUnavailable`."""
    app = backend.app
    with _producer(backend, app, timeout) as producer:
        inspect = app.control.inspect(timeout=INSPECT_SECONDS, connection=producer.connection)
        workers = inspect.active_queues() or {}
    return {queue["name"] for queues in workers.values() for queue in queues}


@contextmanager
def _producer(backend: CeleryBackend, app: Any, timeout: float) -> Iterator[Any]:
    """Yield a producer of a pool. Raises `ServiceUnavailable` if the broker is unavailable."""
    pool = _pool(backend, app, backend.send_deadline)  # Not `timeout`: each of its values would make a pool.
    connection = pool.connections.connection
    try:
        with pool.acquire(block=True, timeout=timeout) as producer:
            yield producer
    except (KombuError, OSError, *connection.connection_errors, *connection.channel_errors) as error:
        message = f"The broker {connection.as_uri()} is unavailable: {_masked(str(error), app)}"
        hint = "Start the broker, or correct CELERY_BROKER_URL."
        raise ServiceUnavailable(message, hint=hint) from error


def _pool(backend: CeleryBackend, app: Any, timeout: float) -> Any:
    """Return the pool of producers of this process. Its sockets time out, which those of the app do not."""
    url = str(app.conf.broker_write_url or app.conf.broker_url)
    key = (id(app), url, timeout)
    with _lock:
        if key not in _pools:
            backend.check_transport()
            limits = {"socket_timeout": timeout, "socket_connect_timeout": timeout, "max_retries": 0}
            options = {**(app.conf.broker_transport_options or {}), **limits}
            connection = app.connection_for_write(connect_timeout=timeout, transport_options=options)
            connections = connection.Pool(limit=MAX_CONNECTIONS)
            _pools[key] = ProducerPool(connections=connections, limit=MAX_CONNECTIONS)
        return _pools[key]


def _masked(message: str, app: Any) -> str:
    """Return the message without the passwords of the broker's URLs."""
    for configured in (app.conf.broker_url, app.conf.broker_write_url):
        urls = configured if isinstance(configured, list | tuple) else str(configured or "").split(";")
        for password in filter(None, (urlsplit(str(url)).password for url in urls)):
            message = message.replace(password, "**").replace(unquote(password), "**")
    return message


def _forget_inherited() -> None:
    """Discard the parent's connections in a forked child."""
    global _lock
    _pools.clear()
    _lock = Lock()


os.register_at_fork(after_in_child=_forget_inherited)
