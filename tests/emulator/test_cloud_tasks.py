"""Cloud Tasks, through Google's client over gRPC and REST, and gcloud."""

from __future__ import annotations

import contextlib
import itertools
import socket
import threading
import time
from datetime import UTC, datetime, timedelta

import pytest
from google.api_core import exceptions
from google.auth.credentials import AnonymousCredentials
from google.cloud import tasks_v2 as api
from google.protobuf import field_mask_pb2

from cloudrun_jobs.emulator import Emulator
from cloudrun_jobs.emulator.cloud_tasks import service
from cloudrun_jobs.emulator.web import Response
from tests.emulator.cloud import PLACE, eventually, script
from tests.emulator.gcloud_cli import NEEDS_GCLOUD, Gcloud
from tests.emulator.rest import Rest

HOOK = "https://hooks.example.com/task"
NOON = datetime(2026, 1, 10, 12, tzinfo=UTC)
ACCOUNT = "app-jobs@acme.iam.gserviceaccount.com"
RUN = f"https://run.googleapis.com/v2/{PLACE}/jobs/work:run"
State, View = api.Queue.State, api.Task.View
HOUR = timedelta(hours=1)
numbers = itertools.count()


class Hook:
    """A target that returns the given statuses and records the requests with their times."""

    def __init__(self, clock):
        self.clock, self.statuses, self.requests, self.times = clock, [], [], []

    def __call__(self, request):
        self.requests.append(request)
        self.times.append(self.clock.now())
        return Response(status=self.statuses.pop(0) if self.statuses else 200)

    def tasks(self):
        return [request.headers["x-cloudtasks-taskname"] for request in self.requests]

    def seconds(self):
        """Return when the requests came, in seconds after the first."""
        return [round((at - self.times[0]).total_seconds(), 3) for at in self.times]


@pytest.fixture(scope="module")
def shared():
    """An emulator with a frozen clock for the tests that start no Cloud Run task."""
    with Emulator() as emulator:
        emulator.clock.freeze(NOON)
        yield emulator


@pytest.fixture
def clock(shared):
    """The clock of an emulator without queues."""
    shared.clock.freeze(NOON)
    yield shared.clock
    for queue in list(shared.cloud_tasks.queues):
        shared.clients.cloud_tasks.delete_queue(name=queue)


@pytest.fixture
def client(shared, clock):
    return shared.clients.cloud_tasks


@pytest.fixture(params=["grpc", "rest"])
def both(request, shared, client):
    """The client over each transport."""
    if request.param == "grpc":
        return client
    options = {"api_endpoint": shared.http}
    return api.CloudTasksClient(transport="rest", credentials=AnonymousCredentials(), client_options=options)


@pytest.fixture
def hook(shared, clock):
    hook = Hook(clock)
    shared.on_delivery(HOOK, hook)
    return hook


def queue_name():
    return f"{PLACE}/queues/q{next(numbers)}"


def new_queue(client, **fields):
    return client.create_queue(parent=PLACE, queue=api.Queue(name=queue_name(), **fields)).name


def add(client, queue, task_id="", delay=None, **fields):
    request = {"url": HOOK, **fields.pop("http_request", {})}
    task = api.Task(name=f"{queue}/tasks/{task_id}" if task_id else "", http_request=request, **fields)
    if delay is not None:
        task.schedule_time = NOON + delay
    return client.create_task(parent=queue, task=task)


def test_queue_defaults_are_set(both):
    """A new queue runs, with the limits that the service chooses."""
    queue = both.create_queue(parent=PLACE, queue={"name": queue_name()})

    assert queue.state == State.RUNNING
    assert queue.rate_limits == api.RateLimits(
        max_dispatches_per_second=500, max_burst_size=100, max_concurrent_dispatches=1000
    )
    assert queue.retry_config == api.RetryConfig(
        max_attempts=100, max_doublings=16, min_backoff=timedelta(seconds=0.1), max_backoff=HOUR
    )
    assert both.get_queue(name=queue.name) == queue


def test_queues_are_listed_by_name_and_state(both):
    """Queues are listed in the order of their names, page by page, and filtered by state."""
    place = PLACE.replace("acme", f"list{next(numbers)}")
    for queue_id in ("b", "a", "c"):
        both.create_queue(parent=place, queue={"name": f"{place}/queues/{queue_id}"})
    both.pause_queue(name=f"{place}/queues/c")
    pages = both.list_queues(api.ListQueuesRequest(parent=place, page_size=2))
    paused = both.list_queues(api.ListQueuesRequest(parent=place, filter="state: PAUSED"))

    assert [queue.name[-1] for queue in pages] == ["a", "b", "c"]
    assert [queue.name[-1] for queue in paused] == ["c"]
    with pytest.raises(exceptions.BadRequest, match="supports only state"):
        both.list_queues(api.ListQueuesRequest(parent=place, filter="name: a"))


def test_update_changes_what_the_mask_names(both):
    """An update changes only the fields of its mask, and keeps the state."""
    queue = new_queue(both, retry_config={"max_attempts": 7})
    both.pause_queue(name=queue)
    new = api.Queue(name=queue, rate_limits={"max_dispatches_per_second": 5}, retry_config={"max_attempts": 9})
    mask = field_mask_pb2.FieldMask(paths=["rate_limits.max_dispatches_per_second"])
    updated = both.update_queue(queue=new, update_mask=mask)

    assert (updated.rate_limits.max_dispatches_per_second, updated.rate_limits.max_burst_size) == (5, 10)
    assert (updated.retry_config.max_attempts, updated.state) == (7, State.PAUSED)


def test_a_mask_without_a_value_restores_the_default(client):
    """A field that the mask names and the queue lacks gets its default again; an unknown one is rejected."""
    queue = new_queue(client, retry_config={"max_attempts": 7, "max_doublings": 3})
    mask = field_mask_pb2.FieldMask(paths=["retry_config.max_attempts"])
    updated = client.update_queue(queue={"name": queue}, update_mask=mask)

    assert (updated.retry_config.max_attempts, updated.retry_config.max_doublings) == (100, 3)
    with pytest.raises(exceptions.InvalidArgument, match="nonsense"):
        client.update_queue(queue={"name": queue}, update_mask=field_mask_pb2.FieldMask(paths=["nonsense"]))


@pytest.mark.parametrize("path", ["state", "purge_time", "rate_limits.max_burst_size"])
def test_output_fields_in_a_mask_are_ignored(client, path):
    """An update changes no field that only the service sets, also if its mask names it."""
    given = {"name": new_queue(client), "state": State.PAUSED, "purge_time": NOON}
    before = client.get_queue(name=given["name"])
    given["rate_limits"] = {"max_burst_size": 7}

    assert client.update_queue(queue=given, update_mask={"paths": [path]}) == before


def test_update_creates_a_missing_queue(client):
    """An update of a queue that does not exist creates it."""
    queue = client.update_queue(queue={"name": queue_name()})

    assert queue.state == State.RUNNING


SAMPLING_MESSAGE = "StackdriverLoggingConfig.samplingRatio must be between [0.0, 1.0]."
QUEUE_ERRORS = [
    ({"rate_limits": {"max_dispatches_per_second": -1}}, "RateLimits.maxDispatchesPerSecond cannot be negative."),
    (
        {"rate_limits": {"max_dispatches_per_second": 501}},
        "RateLimits.maxDispatchesPerSecond must be less than or equal to 500.",
    ),
    ({"rate_limits": {"max_concurrent_dispatches": -1}}, "RateLimits.maxConcurrentDispatches cannot be negative."),
    (
        {"rate_limits": {"max_concurrent_dispatches": 5001}},
        "RateLimits.maxConcurrentDispatches must be less than or equal to 5000.",
    ),
    ({"stackdriver_logging_config": {"sampling_ratio": 1.5}}, SAMPLING_MESSAGE),
    ({"stackdriver_logging_config": {"sampling_ratio": -0.5}}, SAMPLING_MESSAGE),
    ({"retry_config": {"max_attempts": -2}}, "RetryConfig.maxAttempts must be greater or equal to -1."),
    ({"retry_config": {"max_doublings": -1}}, "RetryConfig.maxDoublings cannot be negative."),
    ({"retry_config": {"min_backoff": -HOUR}}, "RetryConfig.minBackoff cannot be negative."),
    ({"retry_config": {"max_backoff": -HOUR}}, "RetryConfig.maxBackoff cannot be negative."),
    (
        {"retry_config": {"min_backoff": 2 * HOUR, "max_backoff": HOUR}},
        "RetryConfig.minBackoff must be less than or equal to RetryConfig.maxBackoff.",
    ),
]


@pytest.mark.parametrize(("fields", "message"), QUEUE_ERRORS)
def test_queue_beyond_a_limit_is_rejected(client, fields, message):
    """A queue beyond a limit is rejected with the service's message, at creation and by an update."""
    queue = new_queue(client)
    for call in (
        lambda: new_queue(client, **fields),
        lambda: client.update_queue(queue={"name": queue, **fields}),
    ):
        with pytest.raises(exceptions.InvalidArgument) as raised:
            call()

        assert raised.value.message == message


def test_queue_names_are_checked(client):
    """A name of another form is rejected with a link to its definition; another location is named."""
    with pytest.raises(exceptions.InvalidArgument, match="Queue name must be formatted") as raised:
        client.create_queue(parent=PLACE, queue={"name": f"{PLACE}/queues/not_valid"})

    assert raised.value.details[0].links[0].url.endswith("#Queue.FIELDS.name")
    with pytest.raises(exceptions.InvalidArgument, match="must begin with projects/other"):
        client.create_queue(parent=PLACE.replace("acme", "other"), queue={"name": queue_name()})
    with pytest.raises(exceptions.InvalidArgument, match="Location 'nowhere' is not a valid location"):
        client.get_queue(name="projects/acme/locations/nowhere/queues/q")


def test_queue_names_stay_taken(client, clock):
    """The name of an existing queue is taken, and that of a deleted one for three days."""
    queue = new_queue(client)
    with pytest.raises(exceptions.AlreadyExists, match="Queue already exists"):
        client.create_queue(parent=PLACE, queue={"name": queue})
    client.delete_queue(name=queue)

    with pytest.raises(exceptions.FailedPrecondition, match="a queue with this name existed too recently"):
        client.create_queue(parent=PLACE, queue={"name": queue})
    with pytest.raises(exceptions.FailedPrecondition, match="a queue with this name existed too recently"):
        client.update_queue(queue={"name": queue})
    with pytest.raises(exceptions.NotFound, match="Requested entity was not found"):
        client.delete_queue(name=queue)
    clock.advance(timedelta(days=3))
    assert client.create_queue(parent=PLACE, queue={"name": queue}).name == queue


@pytest.mark.parametrize("rpc", ["get_queue", "pause_queue", "resume_queue", "purge_queue"])
def test_missing_queue_is_not_found(client, rpc):
    """Calls about a missing queue fail with the service's message."""
    with pytest.raises(exceptions.NotFound, match=r"Queue does not exist\. If you just created the queue, wait"):
        getattr(client, rpc)(name=f"{PLACE}/queues/missing")


def test_task_is_delivered_when_due(both, clock, hook):
    """A task due in 29 days is delivered at its time, with the headers of Cloud Tasks, and is gone."""
    queue = new_queue(both)
    http = {"headers": {"X-Own": "1", "user-agent": "mine", "Host": "x", "X-Google-Y": "1"}, "body": b"hi"}
    created = add(both, queue, "a", timedelta(days=29), http_request=http)
    clock.advance(timedelta(days=29))
    [request] = hook.requests

    assert (created.schedule_time, created.create_time) == (NOON + timedelta(days=29), NOON)
    assert (request.method, request.get_data()) == ("POST", b"hi")
    assert {name.lower(): value for name, value in request.headers} == {
        "host": "hooks.example.com",
        "content-length": "2",
        "user-agent": "Google-Cloud-Tasks",
        "x-own": "1",
        "x-cloudtasks-queuename": queue.rpartition("/")[2],
        "x-cloudtasks-taskname": "a",
        "x-cloudtasks-taskretrycount": "0",
        "x-cloudtasks-taskexecutioncount": "0",
        "x-cloudtasks-tasketa": f"{(NOON + timedelta(days=29)).timestamp():.6f}",
    }
    with pytest.raises(exceptions.NotFound, match="The task no longer exists, though a task with this name"):
        both.get_task(name=created.name)


def test_task_without_a_time_is_delivered_at_once(client, hook):
    """A task without a time, or with one in the past, is delivered at once, even if the clock is frozen."""
    queue = new_queue(client)
    add(client, queue, "now")
    add(client, queue, "past", -HOUR)

    assert eventually(lambda: sorted(hook.tasks()) == ["now", "past"])


def test_views_of_a_task(both, shared):
    """The body is returned only with the view FULL; the headers always."""
    queue = new_queue(both)
    http = {"body": b"secret", "headers": {"X-Own": "1"}}
    basic = add(both, queue, "a", HOUR, http_request=http)
    full = both.get_task(api.GetTaskRequest(name=basic.name, response_view=View.FULL))
    listed = list(both.list_tasks(api.ListTasksRequest(parent=queue, response_view=View.FULL)))

    assert (basic.http_request.body, basic.view) == (b"", View.BASIC)
    assert (full.http_request.body, full.view) == (b"secret", View.FULL)
    assert dict(basic.http_request.headers) == {"X-Own": "1", "User-Agent": "Google-Cloud-Tasks"}
    assert (full.dispatch_deadline, full.http_request.http_method) == (timedelta(minutes=10), api.HttpMethod.POST)
    assert listed == [full]


def test_tasks_are_listed_page_by_page(client):
    """Tasks without a name get a random one, and are listed page by page."""
    queue = new_queue(client)
    names = [add(client, queue, delay=HOUR).name for _ in range(5)]

    assert [task.name for task in client.list_tasks(api.ListTasksRequest(parent=queue, page_size=2))] == names
    assert len(set(names)) == 5


TASK_ERRORS = [
    ({"name": "nonsense"}, "Task name must be formatted"),
    ({"name": f"{PLACE}/queues/other/tasks/a"}, "must be the same as the queue name in the named task"),
    ({"name": "QUEUE/tasks/not a valid id"}, 'Task ID "not a valid id" can contain only letters'),
    ({"http_request": {"url": ""}}, "HttpRequest.url is required."),
    ({"http_request": {"url": "example.com"}}, "HttpTarget.url must start with 'http://' or 'https://'."),
    ({"http_request": {"url": "ftp://example.com"}}, "HttpTarget.url must start with 'http://' or 'https://'."),
    ({"http_request": {"url": f"https://example.com/{'x' * 2083}"}}, "HttpRequest.url must be a URL of at"),
    ({"http_request": {"url": "http://[::1"}}, "HttpRequest.url must be a URL of at most 2083 characters"),
    ({"http_request": {"url": "http://127.0.0.1:99999/"}}, "HttpRequest.url must be a URL of at most 2083"),
    ({"http_request": {"http_method": "GET", "body": b"x"}}, "HttpRequest.body is allowed only with the methods"),
    ({"http_request": {"headers": {"X": "x" * 82_000}}}, "HttpRequest.headers must be less than 80KB"),
    ({"http_request": {"url": "http://127.0.0.1\r\n:1/"}}, "HttpRequest.url must be a URL of at most 2083"),
    ({"http_request": {"url": "http://a b.example.com/"}}, "HttpRequest.url must be a URL of at most 2083"),
    ({"http_request": {"url": "https://example.com/" + "\u3042" * 700}}, "HttpRequest.url must be a URL of"),
    ({"http_request": {"headers": {"X\r\nY": "z"}}}, "HttpRequest.headers has the invalid name"),
    ({"http_request": {"headers": {"": "z"}}}, "HttpRequest.headers has the invalid name"),
    ({"http_request": {"headers": {"X-Own": "a\nb"}}}, "HttpRequest.headers must have values of printable"),
    ({"http_request": {"headers": {"X-Own": "\u3042"}}}, "HttpRequest.headers must have values of printable"),
    ({"http_request": {"body": b"x" * 102_400}}, "Task size too large"),
    ({"dispatch_deadline": timedelta(seconds=14)}, r"Task.dispatchDeadline must be between \[15s, 30m\]."),
    ({"dispatch_deadline": timedelta(minutes=31)}, r"Task.dispatchDeadline must be between \[15s, 30m\]."),
    ({"delay": timedelta(hours=720, seconds=1)}, "The Task.scheduleTime, 2026-02-09T04:00:01-08:00, is too far"),
    ({"delay": timedelta(days=200)}, "2026-07-29T05:00:00-07:00, is too far in the future. Schedule time must"),
    ({"retry_config": {"max_doublings": -1}}, "RetryConfig.maxDoublings cannot be negative."),
]  # fmt: skip


@pytest.mark.parametrize(("fields", "message"), TASK_ERRORS)
def test_task_beyond_a_limit_is_rejected(client, fields, message):
    """A task beyond a limit is rejected with the service's message."""
    queue = new_queue(client)
    name = fields.get("name", "").replace("QUEUE", queue)
    http = {"url": HOOK, **fields.get("http_request", {})}
    rest = {key: value for key, value in fields.items() if key not in ("name", "http_request", "delay")}
    task = api.Task(name=name, http_request=http, **rest)
    if "delay" in fields:
        task.schedule_time = NOON + fields["delay"]
    with pytest.raises(exceptions.InvalidArgument, match=message):
        client.create_task(parent=queue, task=task)

    assert list(client.list_tasks(parent=queue)) == []


def test_unsupported_targets_are_refused(client):
    """App Engine tasks and targets of queues are refused by name."""
    queue = new_queue(client)
    with pytest.raises(exceptions.MethodNotImplemented, match="the emulator has no App Engine"):
        client.create_task(parent=queue, task={"app_engine_http_request": {"relative_uri": "/"}})
    with pytest.raises(exceptions.MethodNotImplemented, match=r"Queue\.http_target is not supported"):
        new_queue(client, http_target={"uri_override": {"host": "example.com"}})
    with pytest.raises(exceptions.InvalidArgument, match=r"Task\.http_request or .* is required"):
        client.create_task(parent=queue, task={})


@pytest.mark.parametrize("end", ["delete", "done"])
def test_task_names_stay_taken(client, clock, hook, end):
    """The name of a task is taken while it exists, and for 24 hours after it was deleted or done."""
    queue = new_queue(client)
    name = add(client, queue, "a", timedelta(minutes=1)).name
    with pytest.raises(exceptions.AlreadyExists, match="Requested entity already exists"):
        add(client, queue, "a")
    if end == "delete":
        client.delete_task(name=name)
    clock.advance(timedelta(minutes=1))

    assert len(hook.requests) == (end == "done")
    with pytest.raises(exceptions.AlreadyExists, match="a task with this name existed too recently"):
        add(client, queue, "a")
    with pytest.raises(exceptions.NotFound, match="existed recently"):
        client.run_task(name=name)
    clock.advance(timedelta(hours=24))
    assert add(client, queue, "a", timedelta(days=2)).name == name


@pytest.mark.parametrize("rpc", ["get_task", "delete_task", "run_task"])
def test_missing_task_is_not_found(client, rpc):
    """Calls about a task that never existed fail with the service's message."""
    queue = new_queue(client)

    with pytest.raises(exceptions.NotFound, match="Requested entity was not found"):
        getattr(client, rpc)(name=f"{queue}/tasks/missing")


def test_retries_and_their_headers(client, clock, hook):
    """A failed task is retried with the queue's back-off; its headers count retries and executions."""
    backoff = {"min_backoff": timedelta(seconds=10), "max_backoff": timedelta(seconds=300), "max_doublings": 3}
    queue = new_queue(client, retry_config=backoff)
    hook.statuses = [503, 404, 429, 500, 302, 404, 404]
    add(client, queue, "a", HOUR)
    clock.advance(2 * HOUR)
    counted = ("retrycount", "executioncount", "previousresponse", "retryreason")
    sent = [[request.headers.get(f"x-cloudtasks-task{name}") for name in counted] for request in hook.requests]

    assert hook.seconds() == [0, 10, 30, 70, 150, 310, 550, 850]
    assert sent[:6] == [
        ["0", "0", None, None], ["1", "0", "503", ""], ["2", "1", "404", ""], ["3", "2", "429", ""],
        ["4", "2", "500", ""], ["5", "3", "302", ""],
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("config", "attempts"),
    [
        ({"max_attempts": 3}, 3),
        ({"max_attempts": 1}, 1),
        ({"max_attempts": 2, "max_retry_duration": timedelta(seconds=45)}, 6),
        ({"max_attempts": -1, "max_retry_duration": timedelta(seconds=25)}, 4),
    ],
)
def test_a_task_fails_for_good(client, clock, hook, config, attempts):
    """A task is deleted when the number of attempts and the retry duration are both reached."""
    wait = {"min_backoff": timedelta(seconds=10), "max_backoff": timedelta(seconds=10)}
    queue = new_queue(client, retry_config={**wait, **config})
    hook.statuses = [500] * 50
    add(client, queue, "a", HOUR)
    clock.advance(2 * HOUR)

    assert len(hook.requests) == attempts
    assert list(client.list_tasks(parent=queue)) == []


@pytest.mark.parametrize(
    ("http", "message"),
    [
        ({"url": "https://example.com/"}, "PERMISSION_DENIED(7): HTTP status code 403"),
        ({"url": "http://127.0.0.1:9/"}, "UNAVAILABLE(14): HTTP status code 503"),
        ({"url": "http://user:word@127.0.0.1:9/"}, "UNAVAILABLE(14): HTTP status code 503"),
        ({"url": "https://hooks.example.com/raises"}, "INTERNAL(13): HTTP status code 500"),
    ],
)
def test_a_delivery_that_cannot_be_made_fails(shared, client, clock, http, message):
    """A target that is not reached, or a function that raises, fails the attempt, and the task is retried."""
    shared.on_delivery("https://hooks.example.com/raises", lambda _: 1 // 0)
    queue = new_queue(client, retry_config={"min_backoff": HOUR})
    name = add(client, queue, "a", HOUR, http_request=http).name
    clock.advance(HOUR)
    task = client.get_task(name=name)

    assert (task.dispatch_count, task.last_attempt.response_status.message) == (1, message)
    assert task.schedule_time == NOON + 2 * HOUR


def test_longest_back_off(client, clock, hook):
    """A back-off of more years than a calendar has is one of a century, on the emulator."""
    years = timedelta(days=365 * 9_000)
    queue = new_queue(client, retry_config={"min_backoff": years, "max_backoff": years})
    hook.statuses = [500]
    name = add(client, queue, "a", HOUR).name
    clock.advance(HOUR)

    assert client.get_task(name=name).schedule_time == NOON + HOUR + timedelta(days=36_500)


def test_retry_settings_of_a_task(client, clock, hook):
    """The retry settings of a task take precedence over those of its queue."""
    queue = new_queue(client, retry_config={"min_backoff": timedelta(seconds=10), "max_attempts": 5})
    hook.statuses = [500] * 9
    add(client, queue, "a", HOUR, retry_config={"max_attempts": 2})
    clock.advance(2 * HOUR)

    assert hook.seconds() == [0, 10]


def test_attempts_are_recorded(client, clock, hook):
    """A task that failed has its first and last attempt, with the status of the response."""
    queue = new_queue(client, retry_config={"min_backoff": timedelta(seconds=10)})
    hook.statuses = [500, 503]
    name = add(client, queue, "a", HOUR).name
    clock.advance(HOUR + timedelta(seconds=15))
    task = client.get_task(name=name)

    start, second = NOON + HOUR, NOON + HOUR + timedelta(seconds=10)
    assert (task.dispatch_count, task.response_count) == (2, 2)
    assert task.first_attempt == api.Attempt(dispatch_time=start)
    assert (task.last_attempt.dispatch_time, task.last_attempt.response_time) == (second, second)
    assert task.last_attempt.response_status.code == 14
    assert task.last_attempt.response_status.message == "UNAVAILABLE(14): HTTP status code 503"
    assert task.schedule_time == second + timedelta(seconds=20)


def test_the_rate_of_dispatches_is_limited(client, clock, hook):
    """A queue dispatches as many tasks at once as its bucket holds, then at its rate."""
    queue = new_queue(client, rate_limits={"max_dispatches_per_second": 2})
    for _ in range(14):
        add(client, queue, delay=HOUR)
    clock.advance(2 * HOUR)

    assert hook.seconds() == [0] * 10 + [0.5, 1.0, 1.5, 2.0]


def test_the_number_of_concurrent_dispatches_is_limited(client, clock, shared, hook):
    """A queue with one concurrent dispatch delivers one task after the other."""
    queue = new_queue(client, rate_limits={"max_concurrent_dispatches": 1})
    running, most = [], []

    def slow(request):
        running.append(request)
        most.append(len(running))
        clock.advance(timedelta(minutes=1))
        running.pop()
        return hook(request)

    shared.on_delivery(HOOK, slow)
    for delay in (60, 60.5, 61):
        add(client, queue, delay=timedelta(minutes=delay))
    clock.advance(2 * HOUR)

    assert (max(most), hook.seconds()) == (1, [0, 60, 120])


def test_dispatches_of_all_queues_are_limited(client, shared, monkeypatch):
    """All queues together have a limit of dispatches; the queue with the fewest takes the next turn."""
    monkeypatch.setattr(service, "MAX_DISPATCHES", 2)
    turns, started = threading.Semaphore(0), []

    def slow(request):
        started.append(request.headers["X-CloudTasks-TaskName"])
        turns.acquire(timeout=30)
        return Response()

    shared.on_delivery(HOOK, slow)
    first, second = new_queue(client), new_queue(client)
    for task_id in ("a1", "a2", "a3"):
        add(client, first, task_id)
    eventually(lambda: len(started) == 2)
    add(client, second, "b")
    turns.release()
    eventually(lambda: len(started) == 3)
    third = started[2]
    turns.release(9)
    eventually(lambda: len(started) == 4)

    assert third == "b"


@contextlib.contextmanager
def silent_server(waiting):
    """Listen without a response, with so many other connections in the queue."""
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(waiting):
            other = stack.enter_context(socket.socket())
            other.setblocking(False)
            other.connect_ex(server.getsockname())
        yield f"127.0.0.1:{server.getsockname()[1]}"


@pytest.mark.parametrize(
    ("scheme", "waiting"), [("http", 0), ("https", 0), ("http", 3)], ids=["request", "handshake", "connect"]
)
def test_stop_aborts_a_dispatch_and_starts_no_other(scheme, waiting):
    """Stopping waits for no target; the task in flight has no result, and the next one is not dispatched."""
    with silent_server(waiting) as address:
        with Emulator() as emulator:
            client = emulator.clients.cloud_tasks
            queue = new_queue(client, rate_limits={"max_concurrent_dispatches": 1})
            http = {"url": f"{scheme}://{address}/"}
            names = [add(client, queue, task_id, http_request=http).name for task_id in ("a", "b")]
            eventually(lambda: client.get_task(name=names[0]).dispatch_count)
            stopping = time.monotonic()

        assert time.monotonic() - stopping < 10
    tasks = [queued.task for queued in emulator.cloud_tasks.queues[queue].tasks.values()]
    assert [(task.dispatch_count, task.last_attempt.response_status.code) for task in tasks] == [(1, 0), (0, 0)]


def test_a_paused_queue_dispatches_nothing(client, clock, hook):
    """A paused queue takes tasks and dispatches them when it is resumed, except for RunTask."""
    queue = new_queue(client)
    client.pause_queue(name=queue)
    add(client, queue, "a", HOUR)
    add(client, queue, "b", HOUR)
    clock.advance(2 * HOUR)

    assert hook.requests == []
    client.run_task(name=f"{queue}/tasks/b")
    eventually(lambda: hook.tasks() == ["b"])
    client.resume_queue(name=queue)
    eventually(lambda: hook.tasks() == ["b", "a"])
    assert list(client.list_tasks(parent=queue)) == []


def test_purge_deletes_all_tasks(client, clock, hook):
    """PurgeQueue deletes all tasks and records its time."""
    queue = new_queue(client)
    add(client, queue, "a", HOUR)
    purged = client.purge_queue(name=queue)
    clock.advance(2 * HOUR)

    assert (purged.purge_time, hook.requests) == (NOON, [])


def test_run_task_that_fails_is_retried(client, clock, hook):
    """RunTask dispatches a task before its time; if that fails, the task is retried from then on."""
    queue = new_queue(client, retry_config={"min_backoff": timedelta(seconds=10)})
    hook.statuses = [500]
    name = add(client, queue, "a", HOUR).name

    assert client.run_task(name=name).schedule_time == NOON
    eventually(lambda: client.get_task(name=name).response_count == 1)
    assert client.get_task(name=name).schedule_time == NOON + timedelta(seconds=10)
    clock.advance(2 * HOUR)
    assert hook.seconds() == [0, 10]


def test_a_task_is_kept_for_31_days(client, clock, hook):
    """A task is deleted 31 days after its creation, dispatched or not."""
    queue = new_queue(client)
    client.pause_queue(name=queue)
    add(client, queue, "a")
    clock.advance(timedelta(days=31))

    assert list(client.list_tasks(parent=queue)) == []


def test_faults_of_deliveries(shared, client, clock, hook):
    """`lose_response` makes a delivery fail, `double_delivery` repeats it, and `fail_after` works by method."""
    queue = new_queue(client)
    shared.faults.lose_response()
    add(client, queue, "a", HOUR)
    clock.advance(HOUR + timedelta(seconds=10))
    shared.faults.double_delivery()
    add(client, queue, "b", 2 * HOUR)
    clock.advance(HOUR)
    shared.faults.fail_after("CloudTasks.CreateTask")

    assert hook.tasks() == ["a", "a", "b", "b"]
    with pytest.raises(exceptions.ServiceUnavailable):
        add(client, queue, "c", timedelta(days=1))
    assert client.get_task(name=f"{queue}/tasks/c").name


def test_a_task_starts_a_cloud_run_job(cloud):
    """A task with an OAuth token starts a job, as its account."""
    cloud.create(script('echo "$0"'))
    client = cloud.emulator.clients.cloud_tasks
    body = b'{"overrides": {"containerOverrides": [{"args": ["from-a-task"]}]}}'
    http = {"url": RUN, "body": body, "oauth_token": {"service_account_email": ACCOUNT}}
    client.create_task(parent=new_queue(client), task={"http_request": http})
    [execution] = eventually(
        lambda: list(cloud.emulator.clients.executions.list_executions(parent=f"{PLACE}/jobs/work"))
    )

    assert cloud.outcome(execution.name).succeeded_count == 1
    assert (cloud.output(), execution.creator) == (["from-a-task"], ACCOUNT)


def test_queues_and_tasks_are_restored(tmp_path):
    """Queues, tasks, their retries and the names in use survive a restart."""
    backoff = {"min_backoff": 2 * HOUR, "max_backoff": 2 * HOUR}
    with Emulator(state=tmp_path) as emulator:
        client, hook = emulator.clients.cloud_tasks, Hook(emulator.clock)
        emulator.on_delivery(HOOK, hook)
        emulator.clock.freeze()
        now = emulator.clock.now()
        queue = new_queue(client, retry_config=backoff)
        hook.statuses = [404]
        add(client, queue, "retried", schedule_time=now + timedelta(seconds=1))
        add(client, queue, "done", schedule_time=now + timedelta(seconds=2))
        add(client, queue, "later", schedule_time=now + timedelta(days=2))
        emulator.clock.advance(10)
    with Emulator(state=tmp_path) as emulator:
        client, hook = emulator.clients.cloud_tasks, Hook(emulator.clock)
        emulator.on_delivery(HOOK, hook)
        emulator.clock.freeze()
        with pytest.raises(exceptions.AlreadyExists, match="existed too recently"):
            add(client, queue, "done")
        emulator.clock.advance(timedelta(days=3))

        assert hook.tasks() == ["retried", "later"]
        assert hook.times == [now + 2 * HOUR + timedelta(seconds=1), now + timedelta(days=2)]
        assert [request.headers["x-cloudtasks-taskexecutioncount"] for request in hook.requests] == ["1", "0"]


def lacks(permission, resource):
    return (
        f'The principal (user or service account) lacks IAM permission "{permission}" for the resource '
        f'"{resource}" (or the resource may not exist).'
    )


def test_permissions():
    """Each call, a FULL view and the token of an account need their permissions, which policies grant."""
    owner, worker = "owner@example.com", "worker@acme.iam.gserviceaccount.com"
    policy = {"bindings": [{"role": "roles/owner", "members": [f"user:{owner}", f"serviceAccount:{ACCOUNT}"]},
                           {"role": "roles/browser", "members": [f"serviceAccount:{worker}"]}]}  # fmt: skip
    with Emulator(iam=policy) as emulator:
        call, own = Rest(emulator, worker), Rest(emulator, owner)
        own("POST", f"v2/{PLACE}/queues", name=f"{PLACE}/queues/q")
        path = f"v2/{PLACE}/queues/q"
        task = {"httpRequest": {"url": HOOK, "oauthToken": {"serviceAccountEmail": ACCOUNT}}}
        denied = call.error("POST", f"{path}/tasks", task=task)["message"]
        bound = own.bind(path, "roles/cloudtasks.enqueuer", f"serviceAccount:{worker}")
        denied_act_as = call.error("POST", f"{path}/tasks", task=task)["message"]
        own.bind(
            f"v1/projects/acme/serviceAccounts/{ACCOUNT}",
            "roles/iam.serviceAccountUser",
            f"serviceAccount:{worker}",
        )
        created = call("POST", f"{path}/tasks", task=task, responseView="FULL")
        no_view = call.error("GET", f"{path}/tasks?responseView=FULL")["message"]

        assert denied == lacks("cloudtasks.tasks.create", f"{PLACE}/queues/q")
        assert [binding["role"] for binding in bound["bindings"]] == ["roles/cloudtasks.enqueuer"]
        assert denied_act_as == lacks("iam.serviceAccounts.actAs", ACCOUNT)
        assert created["view"] == "FULL"
        assert no_view == lacks("cloudtasks.tasks.list", f"{PLACE}/queues/q")
        assert call.held(path, "cloudtasks.tasks.create", "cloudtasks.tasks.delete") == ["cloudtasks.tasks.create"]


def test_regions_are_listed(shared):
    """The regions are listed for requests to the host of Cloud Tasks."""
    import requests

    url = f"{shared.http}/v2/projects/acme/locations"
    found = requests.get(url, headers={"Host": "cloudtasks.googleapis.com"}, timeout=10).json()

    assert "europe-west4" in {each["locationId"] for each in found["locations"]}


@NEEDS_GCLOUD
def test_gcloud_manages_queues_and_tasks(cloud, tmp_path):
    """gcloud creates, describes, lists, pauses, resumes, updates, purges and deletes queues, and handles tasks."""
    gcloud, at, on = Gcloud(cloud.emulator.http, tmp_path), "--location=europe-west4", "--queue=jobs"
    hook = Hook(cloud.emulator.clock)
    cloud.emulator.on_delivery(HOOK, hook)
    gcloud("tasks", "queues", "create", "jobs", at, "--max-attempts=3", "--max-dispatches-per-second=5")
    gcloud("tasks", "queues", "update", "jobs", at, "--max-attempts=4")
    queue = gcloud("tasks", "queues", "describe", "jobs", at)
    gcloud("tasks", "queues", "pause", "jobs", at)
    [paused] = gcloud("tasks", "queues", "list", at)
    header, body = "--header=Content-Type: application/json", "--body-content={}"
    created = gcloud("tasks", "create-http-task", "one", on, at, f"--url={HOOK}", header, body)
    gcloud("tasks", "create-http-task", "two", on, at, f"--url={HOOK}")
    tasks = gcloud("tasks", "list", on, at)
    full = gcloud("tasks", "describe", "one", on, at, "--response-view=full")
    gcloud("tasks", "run", "one", on, at)
    eventually(lambda: hook.tasks() == ["one"])
    gcloud("tasks", "delete", "two", on, at)
    gcloud("tasks", "queues", "resume", "jobs", at)
    gcloud("tasks", "queues", "purge", "jobs", at)
    member = ("--member=user:a@example.com", "--role=roles/cloudtasks.enqueuer")
    policy = gcloud("tasks", "queues", "add-iam-policy-binding", "jobs", at, *member)
    regions = gcloud("tasks", "locations", "list")

    assert (queue["retryConfig"]["maxAttempts"], queue["rateLimits"]["maxDispatchesPerSecond"]) == (4, 5)
    assert paused["state"] == "PAUSED"
    assert created["name"].endswith("/queues/jobs/tasks/one")
    assert {task["name"].rpartition("/")[2] for task in tasks} == {"one", "two"}
    assert full["httpRequest"]["body"] == "e30="
    assert policy["bindings"][0]["members"] == ["user:a@example.com"]
    assert len(regions) > 10
    gcloud("tasks", "queues", "delete", "jobs", at)
    assert gcloud("tasks", "queues", "list", at) == []
