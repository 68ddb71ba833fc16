"""Stream the events of a run, as server-sent events."""

from __future__ import annotations

import asyncio
import json
import re
import threading
import time
from collections.abc import AsyncIterator, Collection, Iterator
from contextlib import suppress
from functools import partial
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias
from uuid import UUID

from asgiref.sync import sync_to_async
from django.core.handlers.asgi import ASGIRequest
from django.core.serializers.json import DjangoJSONEncoder
from django.db import connections
from django.http import HttpResponse, HttpResponseBase, StreamingHttpResponse

from cloudrun_jobs.http.authentication import Caller
from cloudrun_jobs.http.poller import Poller, Watch
from cloudrun_jobs.http.query import read_query
from cloudrun_jobs.http.runs import find_run
from cloudrun_jobs.process.connections import close
from cloudrun_jobs.runs.data import failures_data, listed_data, progress_data, read_progress, record_data

if TYPE_CHECKING:
    from django.http import HttpRequest

    from cloudrun_jobs.models import JobRun, Progress

KEEPALIVE_INTERVAL = 15.0  # seconds
MAX_SECONDS = 240.0  # Cloud Run ends a request after 300 seconds by default.
MAX_SYNC_STREAMS = 2  # per process: each of them occupies a thread of a WSGI server

CONTENT_TYPE = "text/event-stream"
COMMENT = b":\n\n"
RECONNECT = b"retry: 1000\n\n"
POLL = b"retry: 2000\n\n"


class Event(NamedTuple):
    """An event. By its digest, a stream knows whether a reconnecting client has received it."""

    name: str
    data: bytes
    digest: str


#: The state of a run: its latest events, at most one of each name. An event's id consists of their digests.
State: TypeAlias = tuple[Event, ...]
NAMES = ("status", "progress", "end")
EVENT_ID = re.compile("-".join([r"([0-9a-f]{12})?"] * len(NAMES)))


def stream_events(request: HttpRequest, caller: Caller, name: str) -> HttpResponseBase:
    """Stream the events of a run until it has ended."""
    read_query(request, {})
    run_id = find_run(caller, "read", name).pk
    state = read_states([run_id]).get(run_id) or deleted(run_id)
    seconds = MAX_SECONDS if caller.expires is None else min(MAX_SECONDS, caller.expires - time.time())
    stream = Stream(run_id, state, request.headers.get("last-event-id", ""), seconds)
    request.META.pop("HTTP_ACCEPT_ENCODING", None)  # Compression would delay events.
    headers = {"X-Accel-Buffering": "no"}  # So would buffering in nginx.
    if has_ended(state):
        sent = stream.unseen(state)
        # An EventSource reconnects after the last event, unless the status is 204.
        return HttpResponse(sent, status=200 if sent else 204, content_type=CONTENT_TYPE, headers=headers)
    if isinstance(request, ASGIRequest):
        content: Any = AsyncContent(stream)
    else:
        # Django's test client has one thread as well: in a TestCase, the poller would not see the records.
        content = sync_content(stream, can_wait=bool(request.META.get("wsgi.multithread")))
    return StreamingHttpResponse(content, content_type=CONTENT_TYPE, headers=headers)


def read_states(run_ids: Collection[UUID]) -> dict[UUID, State]:
    """Return the states of these runs, read with one query."""
    return {run.pk: run_state(run, progress) for run, progress in read_progress(run_ids)}


def run_state(run: JobRun, progress: Progress | None) -> State:
    events, done = [event(run.pk, "status", listed_data(run))], progress_data(progress)
    if done:
        events.append(event(run.pk, "progress", done))
    if run.is_finished:
        events.append(event(run.pk, "end", {**record_data(run), "progress": done, **failures_data(run)}))
    return tuple(events)


def deleted(run_id: UUID) -> State:
    """Return the state of a run whose record has been deleted."""
    return (event(run_id, "end", {"id": run_id, "status": None}),)


def event(run_id: UUID, name: str, data: Any) -> Event:
    text = json.dumps(data, cls=DjangoJSONEncoder, ensure_ascii=False)
    encoded = text.encode(errors="backslashreplace")  # A lone surrogate, as JSON escapes it.
    return Event(name, encoded, blake2b(run_id.bytes + encoded, digest_size=6).hexdigest())


def has_ended(state: State) -> bool:
    return state[-1].name == "end"


class Stream:
    """The events of a run that one client has received, and those to send to it."""

    def __init__(self, run_id: UUID, state: State, last_event_id: str, seconds: float) -> None:
        self.watch = Watch(run_id, state)
        self._seconds = seconds
        # An id of any other form is ignored: every event is sent.
        known = EVENT_ID.fullmatch(last_event_id)
        self._seen = dict(zip(NAMES, known.groups(""), strict=True)) if known else {}

    def unseen(self, state: State) -> bytes:
        """Return the events of the state that the client has not received."""
        chunks = []
        for name, data, digest in state:
            if self._seen.get(name) != digest:
                self._seen[name] = digest
                event_id = "-".join(self._seen.get(each, "") for each in NAMES).encode()
                chunks.append(b"event: %b\nid: %b\ndata: %b\n\n" % (name.encode(), event_id, data))
        return b"".join(chunks)

    def steps(self) -> Iterator[bytes | float]:
        """Yield bytes to send, or the number of seconds to wait for a new state."""
        now = time.monotonic()
        closes_at, comment_at = now + self._seconds, now  # A server sends the headers with the first content.
        while True:
            state = self.watch.state or deleted(self.watch.run_id)
            if content := self.unseen(state):
                yield content
                comment_at = now + KEEPALIVE_INTERVAL
            if has_ended(state):
                return
            if now >= closes_at:
                yield RECONNECT
                return
            if now >= comment_at:
                yield COMMENT
                comment_at = now + KEEPALIVE_INTERVAL
            yield max(0.0, min(comment_at, closes_at) - now)
            now = time.monotonic()


poller = Poller(read_states)
sync_streams = threading.BoundedSemaphore(MAX_SYNC_STREAMS)


def sync_content(stream: Stream, *, can_wait: bool) -> Iterator[bytes]:
    """Yield the content of a WSGI response; if no stream is free, the current state, so that the client polls."""
    if not can_wait or not sync_streams.acquire(blocking=False):
        yield stream.unseen(stream.watch.state) + POLL
        return
    changed = threading.Event()
    stream.watch.wake = changed.set
    try:
        close_connections()
        poller.add(stream.watch)
        for step in stream.steps():
            if isinstance(step, bytes):
                yield step
            else:
                changed.wait(step)
                changed.clear()
    finally:
        poller.remove(stream.watch)
        sync_streams.release()


class AsyncContent:
    """The content of an ASGI response."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    async def __aiter__(self) -> AsyncIterator[bytes]:
        # The request keeps the thread that ran the view until it ends.
        await sync_to_async(close_connections)()
        changed, watch = asyncio.Event(), self._stream.watch
        watch.wake = partial(_set_threadsafe, asyncio.get_running_loop(), changed)
        poller.add(watch)
        try:
            for step in self._stream.steps():
                if isinstance(step, bytes):
                    yield step
                else:
                    with suppress(TimeoutError):
                        async with asyncio.timeout(step):
                            await changed.wait()
                    changed.clear()
        finally:
            self.close()

    def close(self) -> None:
        """End the stream. Django closes the response of a client that has disconnected, but not the generator."""
        poller.remove(self._stream.watch)


def _set_threadsafe(loop: asyncio.AbstractEventLoop, event: asyncio.Event) -> None:
    with suppress(RuntimeError):  # The loop is closed.
        loop.call_soon_threadsafe(event.set)


def close_connections() -> None:
    """Close this thread's database connections: a waiting stream needs none."""
    for connection in connections.all(initialized_only=True):
        if not connection.in_atomic_block:
            close(connection)
