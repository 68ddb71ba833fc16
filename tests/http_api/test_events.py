"""The events of a run: their format, what is sent again, and when a stream ends."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import AsyncIterator, Callable, Collection, Iterator
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any
from uuid import UUID, uuid4

import pytest
from asgiref.testing import ApplicationCommunicator
from django.core.handlers.asgi import ASGIHandler
from django.test import Client
from hypothesis import given
from hypothesis import strategies as st

from cloudrun_jobs.http import events
from cloudrun_jobs.http import poller as poller_module
from cloudrun_jobs.http.events import State, Stream
from cloudrun_jobs.http.poller import Poller
from cloudrun_jobs.models import JobRun, TaskRun
from cloudrun_jobs.models.functions import Now
from cloudrun_jobs.runs.data import read_progress
from tests.http_api.conftest import PREFIX, secret
from tests.http_api.sse import Message, messages
from tests.waiting import wait_for

TEXTS = st.text() | st.text("\r\n\x00:\u2028\ud800 d", max_size=9)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | TEXTS,
    lambda values: st.lists(values, max_size=3) | st.dictionaries(TEXTS, values, max_size=3),
    max_leaves=10,
)
PROGRESS = {"progress_done": 3, "progress_total": 9, "progress_text": "c"}
THREADS = {"wsgi.multithread": True}  # Which Django's client says it has not.
NAMES = ["status", "progress", "end"]


@pytest.fixture
def run() -> JobRun:
    """A run that is running, and has reported progress."""
    run: JobRun = JobRun.objects.create(
        command="echo", argv=["echo", "--partner=7"], environment="test", trigger="delay", status="running"
    )
    TaskRun.objects.create(run=run, index=0, worker=uuid4(), **PROGRESS)
    return run


def end(run: JobRun, **values: Any) -> None:
    values = {"status": "succeeded", "finished_at": Now(), "result": {"rows": 3}, "traceback": "secret", **values}
    JobRun.objects.filter(pk=run.pk).update(**values)


def received(response: Any) -> list[Message]:
    assert (response.status_code, response["Content-Type"]) == (200, "text/event-stream")
    return messages(response.getvalue())


@given(data=VALUES)
def test_data_arrives_as_it_is(data: Any) -> None:
    """Line ends, NUL, text of any language and half characters are the client's as they were the job's."""
    one = events.event(uuid4(), "status", data)

    (message,) = messages(Stream(uuid4(), (one,), "", 0).unseen((one,)))

    assert (message.name, message.data, message.id) == ("status", data, f"{one.digest}--")


def test_run_that_has_ended(call: Callable[..., Any], run: JobRun) -> None:
    """Everything is sent at once; the last event has all that GET returns."""
    end(run)

    response = call("GET", f"jobs/{run.pk}/events/")

    status, progress, last = received(response)
    shown = call("GET", f"jobs/{run.pk}/").json()
    assert [status.name, progress.name, last.name] == NAMES
    assert last.data == shown
    assert progress.data == shown["progress"] == {"done": 3, "total": 9, "text": "c"}
    assert status.data == call("GET", "jobs/").json()["runs"][0]
    assert (response["Cache-Control"], response["X-Accel-Buffering"]) == ("no-store", "no")
    assert b"secret" not in response.content


def test_run_is_found_by_its_execution(call: Callable[..., Any], run: JobRun) -> None:
    """As everywhere, the name of the execution will do."""
    end(run, execution="echo-test-abcde")

    assert received(call("GET", "jobs/echo-test-abcde/events/"))[-1].data["id"] == str(run.pk)


def test_stream_resumes_after_the_last_event(call: Callable[..., Any], run: JobRun) -> None:
    """An event that was received is not sent again; after the last one an EventSource is to stop."""
    end(run)
    sent = received(call("GET", f"jobs/{run.pk}/events/"))

    def after(event_id: str) -> Any:
        return call("GET", f"jobs/{run.pk}/events/", headers={"last-event-id": event_id})

    assert received(after(sent[0].id)) == sent[1:]
    assert received(after(sent[1].id)) == sent[2:]
    response = after(sent[2].id)
    assert (response.status_code, response.content) == (204, b"")


def test_stream_resumes_with_the_present_state(call: Callable[..., Any], run: JobRun) -> None:
    """What changed meanwhile is sent, in its latest state."""
    seen = received(call("GET", f"jobs/{run.pk}/events/"))
    TaskRun.objects.filter(run=run).update(progress_done=8)
    TaskRun.objects.filter(run=run).update(progress_done=9)

    progress, retry = received(call("GET", f"jobs/{run.pk}/events/", headers={"last-event-id": seen[-2].id}))

    assert [message.name for message in seen] == ["status", "progress", "retry"]
    assert (progress.name, progress.data["done"], retry.name) == ("progress", 9, "retry")


@pytest.mark.parametrize(
    "event_id",
    ["", "-", "--", "0", "x" * 5000, "a-b-c", f"{'0' * 12}-{'f' * 12}", "\u00e9\u00ff", "\0", "\n\ndata: x"],
)
def test_unknown_event_id_is_that_of_no_event(call: Callable[..., Any], run: JobRun, event_id: str) -> None:
    """A client with an id of an earlier version gets everything, and no error that would stop it."""
    run.tasks.all().delete()

    response = call("GET", f"jobs/{run.pk}/events/", headers={"last-event-id": event_id})

    status, retry = received(response)
    assert (status.name, retry.name) == ("status", "retry")
    assert re.fullmatch("[0-9a-f]{12}--", status.id)


def test_event_id_of_another_run(call: Callable[..., Any], run: JobRun) -> None:
    """Equal progress of another run is not the same event."""
    other = JobRun.objects.create(command="echo", environment="test", trigger="delay", status="succeeded")
    TaskRun.objects.create(
        run=other, index=0, worker=uuid4(), progress_done=3, progress_total=9, progress_text="c"
    )
    end(run)
    last = received(call("GET", f"jobs/{run.pk}/events/"))[-1]

    response = call("GET", f"jobs/{other.pk}/events/", headers={"last-event-id": last.id})

    assert [message.name for message in received(response)] == NAMES


@pytest.mark.parametrize(
    ("options", "status", "code"),
    [
        ({"token": ""}, 401, "unauthenticated"),
        ({"token": "expired"}, 401, "unauthenticated"),
        ({"token": "walk only"}, 403, "forbidden"),
        ({"method": "POST"}, 405, "method_not_allowed"),
        ({"path": "jobs/{run}/events/?wait=1"}, 400, "invalid_query"),
        ({"path": "jobs/unknown/events/"}, 404, "not_found"),
        ({"path": "jobs/00000000-0000-4000-8000-000000000000/events/"}, 404, "not_found"),
    ],
)
def test_request_is_refused(
    call: Callable[..., Any], run: JobRun, options: dict[str, str], status: int, code: str
) -> None:
    """As that for the run itself, with the same error."""
    path = options.pop("path", "jobs/{run}/events/").format(run=run.pk)

    response = call(options.pop("method", "GET"), path, **options)

    assert (response.status_code, response.json()["error"]["code"]) == (status, code)
    assert response["Cache-Control"] == "no-store"


REPORTS = st.lists(
    st.tuples(
        st.none() | st.integers(0, 2**50), st.none() | st.integers(0, 2**50), st.sampled_from(["", "a", "b"])
    ),
    max_size=4,
)


@pytest.mark.parametrize("reports", [[], [(None, None, "")], [(0, 0, "")]])
def test_progress_without_much(run: JobRun, reports: list[Any]) -> None:
    """No task, one without a report, and one with zeros."""
    compare(run, reports, 1)


@given(reports=REPORTS, tasks=st.integers(1, 4))
def test_progress_is_read_with_the_run(reports: list[Any], tasks: int) -> None:
    """The database adds up the tasks as the record does, in one query for all runs."""
    run = JobRun.objects.create(command="echo", environment="test", trigger="delay")
    compare(run, reports, tasks)
    run.delete()


def compare(run: JobRun, reports: list[Any], tasks: int) -> None:
    run.tasks.all().delete()
    run.task_count = tasks
    run.save()
    for index, (done, total, text) in enumerate(reports):
        values = {"progress_done": done, "progress_total": done and total, "progress_text": text}
        moment = datetime(2026, 1, 1, 0, 0, (index * 7) % 5, tzinfo=UTC)
        TaskRun.objects.create(run=run, index=index, worker=uuid4(), heartbeat_at=moment, **values)

    assert [progress for _, progress in read_progress([run.pk])] == [run.progress]


def test_states_are_read_with_one_query(django_assert_num_queries: Any, run: JobRun) -> None:
    """Whatever the number of runs, and though one has ended."""
    others = [JobRun.objects.create(command="echo", environment="test", trigger="delay") for _ in range(5)]
    end(run)

    with django_assert_num_queries(1):
        states = events.read_states([run.pk, *(other.pk for other in others)])

    assert len(states) == 6
    assert events.has_ended(states[run.pk])


class Clock:
    """The monotonic time of a stream, which passes while it waits."""

    now = 1000.0

    def monotonic(self) -> float:
        return self.now


def timeline(monkeypatch: pytest.MonkeyPatch, stream: Stream) -> list[tuple[float, bytes]]:
    """Return what the stream sends, and after how many seconds, while nothing happens."""
    clock, sent = Clock(), []
    monkeypatch.setattr(events, "time", clock)
    for step in stream.steps():
        if isinstance(step, bytes):
            sent.append((clock.now - 1000, step))
        else:
            clock.now += step
    return sent


def test_silent_stream_is_kept_alive_and_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A comment every 15 seconds, and after 240 the advice to connect again."""
    run_id = uuid4()
    state = (events.event(run_id, "status", {}),)
    last_event_id = f"{state[0].digest}--"

    sent = timeline(monkeypatch, Stream(run_id, state, last_event_id, events.MAX_SECONDS))

    assert sent == [(seconds, b":\n\n") for seconds in range(0, 240, 15)] + [(240, b"retry: 1000\n\n")]


def test_event_takes_the_place_of_a_comment(monkeypatch: pytest.MonkeyPatch) -> None:
    """After an event, the next comment is due 15 seconds later."""
    state = (events.event(uuid4(), "status", {}),)

    sent = timeline(monkeypatch, Stream(uuid4(), state, "", 20))

    assert [(seconds, content[:6]) for seconds, content in sent] == [
        (0, b"event:"),
        (15, b":\n\n"),
        (20, b"retry:"),
    ]


class Records:
    """States that change, and no database."""

    def __init__(self) -> None:
        self.run_id = uuid4()
        self.show("pending")

    def show(self, *statuses: str) -> None:
        """Show a status, and perhaps the end."""
        names = zip(NAMES[::2], statuses, strict=False)
        self.state: State | None = tuple(events.event(self.run_id, name, status) for name, status in names)

    def follow(self, run: JobRun) -> None:
        """Show this run, as it is now."""
        self.run_id, self.state = run.pk, events.read_states([run.pk])[run.pk]

    def read(self, run_ids: Collection[UUID]) -> dict[UUID, State]:
        return {self.run_id: self.state} if self.state else {}

    def stream(self, seconds: float = 60) -> Stream:
        assert self.state is not None
        return Stream(self.run_id, self.state, "", seconds)


@pytest.fixture
def records(monkeypatch: pytest.MonkeyPatch) -> Iterator[Records]:
    """Records that streams follow, and whose poller has ended with them."""
    records = Records()
    poller = Poller(records.read)
    monkeypatch.setattr(events, "poller", poller)
    monkeypatch.setattr(events, "sync_streams", threading.BoundedSemaphore(events.MAX_SYNC_STREAMS))
    monkeypatch.setattr(poller_module, "POLL_INTERVAL", 0.005)
    yield records
    assert not poller._watches
    wait_for(lambda: poller._thread is None)
    assert events.sync_streams._value == events.MAX_SYNC_STREAMS


def names(content: bytes) -> list[Any]:
    return [(message.name, message.data) for message in messages(content)]


def test_changes_are_sent_until_the_end(records: Records) -> None:
    """Each change is one event; after `end` the response is complete."""
    content = events.sync_content(records.stream(), can_wait=True)
    assert names(next(content)) == [("status", "pending")]
    records.show("running")
    assert names(next(content)) == [("status", "running")]
    records.show("succeeded", "all")
    assert names(next(content)) == [("status", "succeeded"), ("end", "all")]

    assert list(content) == []


def test_deleted_record_ends_the_stream(records: Records) -> None:
    """A run that was pruned has no status any more."""
    content = events.sync_content(records.stream(), can_wait=True)
    next(content)
    records.state = None

    assert names(b"".join(content)) == [("end", {"id": str(records.run_id), "status": None})]


def test_third_stream_of_a_process_polls(records: Records) -> None:
    """Each stream occupies a thread; a closed one makes room at once."""
    streams = [events.sync_content(records.stream(), can_wait=True) for _ in range(3)]
    assert [names(next(one)) for one in streams[:2]] == [[("status", "pending")]] * 2

    assert names(b"".join(streams[2])) == [("status", "pending"), ("retry", 2000)]

    streams[0].close()
    again = events.sync_content(records.stream(), can_wait=True)
    assert names(next(again)) == [("status", "pending")]
    again.close()
    streams[1].close()


def test_server_without_threads_is_not_blocked(call: Callable[..., Any], run: JobRun, records: Records) -> None:
    """A sync worker of gunicorn answers at once, like one that has no stream free."""
    response = call("GET", f"jobs/{run.pk}/events/")

    assert [message.name for message in received(response)] == ["status", "progress", "retry"]


def test_response_that_is_never_sent_holds_nothing(
    call: Callable[..., Any], run: JobRun, records: Records
) -> None:
    """A middleware may put another response in its place."""
    for _ in range(3):
        call("GET", f"jobs/{run.pk}/events/")

    assert events.sync_streams._value == events.MAX_SYNC_STREAMS


def test_closed_response_is_no_longer_watched(call: Callable[..., Any], run: JobRun, records: Records) -> None:
    """A WSGI server closes the response of a client that has disconnected."""
    response = call("GET", f"jobs/{run.pk}/events/", **THREADS)
    next(response.streaming_content)
    assert len(events.poller._watches) == 1

    response.close()

    assert not events.poller._watches


def test_stream_ends_with_the_token(http: Client, settings: Any, run: JobRun, records: Records) -> None:
    """A token that expires ends the stream; the request that follows needs another one."""
    expires = datetime.now(UTC) + timedelta(seconds=0.3)
    token = {"name": "short", "header": "x-token", "sha256": sha256(b"t").hexdigest(), "scopes": ["read"]}
    settings.CLOUDRUN_JOBS = {"ENVIRONMENT": "test", "HTTP": {"TOKENS": [{**token, "expires": expires}]}}
    records.follow(run)

    response = http.get(f"{PREFIX}jobs/{run.pk}/events/", headers={"x-token": "t"}, **THREADS)

    assert received(response)[-1] == Message("retry", 1000)
    assert datetime.now(UTC) >= expires


async def taken(content: AsyncIterator[bytes]) -> list[Any]:
    return names(await anext(content))


def test_changes_are_sent_to_an_event_loop(records: Records) -> None:
    """As under WSGI, for any number of streams."""

    async def follow() -> list[Any]:
        contents = [aiter(events.AsyncContent(records.stream())) for _ in range(20)]
        received = [await taken(content) for content in contents]
        records.show("succeeded", "all")
        for content in contents:
            received.append(await taken(content))
            with pytest.raises(StopAsyncIteration):
                await anext(content)
        return received

    ended = [("status", "succeeded"), ("end", "all")]
    assert asyncio.run(follow()) == [[("status", "pending")]] * 20 + [ended] * 20


def test_streams_of_two_event_loops(records: Records) -> None:
    """They share the poller."""
    sent: list[Any] = []

    async def follow() -> None:
        content = aiter(events.AsyncContent(records.stream()))
        sent.append(await taken(content))
        sent.append(await taken(content))

    threads = [threading.Thread(target=asyncio.run, args=(follow(),)) for _ in range(2)]
    for thread in threads:
        thread.start()
    wait_for(lambda: len(sent) == 2)
    records.show("succeeded", "all")
    for thread in threads:
        thread.join(30)

    assert sent[2:] == [[("status", "succeeded"), ("end", "all")]] * 2


def test_cancelled_stream_is_no_longer_watched(records: Records) -> None:
    """Cancelled while it waits, it is gone before the task ends."""

    async def follow() -> None:
        content = aiter(events.AsyncContent(records.stream()))
        await anext(content)
        waiting = asyncio.ensure_future(anext(content))
        await asyncio.sleep(0)
        assert len(events.poller._watches) == 1
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert not events.poller._watches

    asyncio.run(follow())


def test_closed_event_loop_does_not_end_the_poller(records: Records) -> None:
    """A loop that has ended cannot be woken; other streams go on."""
    loop, left = asyncio.new_event_loop(), events.AsyncContent(records.stream())
    content = aiter(left)
    loop.run_until_complete(anext(content))
    loop.close()
    other = events.sync_content(records.stream(), can_wait=True)
    next(other)
    assert len(events.poller._watches) == 2

    records.show("running")

    assert names(next(other)) == [("status", "running")]
    other.close()
    left.close()


def asgi_scope(run: JobRun) -> dict[str, Any]:
    return {
        "type": "http",
        "method": "GET",
        "path": f"{PREFIX}jobs/{run.pk}/events/",
        "query_string": b"",
        "headers": [(b"host", b"testserver"), (b"x-token", secret("all").encode())],
    }


@pytest.mark.django_db(transaction=True)
def test_disconnected_client_is_no_longer_watched(
    settings: Any, http: Client, run: JobRun, records: Records
) -> None:
    """An ASGI server says when the client has gone, though nothing is sent."""
    scope = asgi_scope(run)
    records.follow(run)

    async def follow() -> None:
        server = ApplicationCommunicator(ASGIHandler(), scope)
        await server.send_input({"type": "http.request"})
        start = await server.receive_output(30)
        body = await server.receive_output(30)
        assert (start["status"], names(body["body"])[0][0]) == (200, "status")
        assert len(events.poller._watches) == 1
        await server.send_input({"type": "http.disconnect"})
        await server.wait(30)
        assert not events.poller._watches

    asyncio.run(follow())


@pytest.mark.django_db(transaction=True)
def test_client_that_disconnects_while_it_is_sent_to(
    http: Client, run: JobRun, records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Django does not close the generator then, but the response."""
    scope = asgi_scope(run)
    records.follow(run)

    async def follow() -> None:
        requests, is_stuck = [{"type": "http.request"}], asyncio.Event()

        async def receive() -> dict[str, Any]:
            if requests:
                return requests.pop()
            await is_stuck.wait()
            assert len(events.poller._watches) == 1
            return {"type": "http.disconnect"}

        async def send(message: dict[str, Any]) -> None:
            if message.get("body"):
                is_stuck.set()
                await asyncio.Event().wait()

        await ASGIHandler()(scope, receive, send)
        assert not events.poller._watches

    iterate, kept = events.AsyncContent.__aiter__, []

    def keep(content: events.AsyncContent) -> AsyncIterator[bytes]:
        kept.append(iterate(content))  # Nor is it collected.
        return kept[-1]

    monkeypatch.setattr(events.AsyncContent, "__aiter__", keep)
    asyncio.run(follow())
