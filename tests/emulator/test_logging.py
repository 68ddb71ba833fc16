"""Logging's methods: write, list, tail and delete log entries."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta

import grpc
import pytest
from google.api_core import exceptions
from google.cloud.logging_v2.types import (
    DeleteLogRequest,
    ListLogEntriesRequest,
    ListLogsRequest,
    LogEntry,
    TailLogEntriesRequest,
    TailLogEntriesResponse,
    WriteLogEntriesRequest,
)
from google.iam.v1 import iam_policy_pb2

from cloudrun_jobs.emulator import Emulator
from cloudrun_jobs.emulator.clock import Clock
from cloudrun_jobs.emulator.errors import ServiceError
from cloudrun_jobs.emulator.iam.access import Iam
from cloudrun_jobs.emulator.logs import tailing
from cloudrun_jobs.emulator.logs.methods import compiled
from cloudrun_jobs.emulator.logs.store import Entry, LogStore
from cloudrun_jobs.emulator.project.documents import Documents
from tests.emulator.cloud import eventually
from tests.emulator.rest import Rest

TAIL = "/google.logging.v2.LoggingServiceV2/TailLogEntries"
START = datetime(2026, 3, 1, tzinfo=UTC)
GLOBAL = {"type": "global"}


@pytest.fixture(scope="module")
def emulator():
    with Emulator(port=0, grpc_port=0) as emulator:
        yield emulator


@pytest.fixture
def logging(emulator):
    return emulator.clients.logging


@pytest.fixture
def project(request):
    """Return the name of a project that only this test uses."""
    return f"projects/{request.node.originalname.replace('_', '-')}"


def write(logging, log_name, *texts, **fields):
    entries = [
        LogEntry(text_payload=text, insert_id=text, timestamp=START + timedelta(seconds=seconds), **fields)
        for seconds, text in enumerate(texts)
    ]
    logging.write_log_entries(WriteLogEntriesRequest(log_name=log_name, resource=GLOBAL, entries=entries))


def texts(pager):
    return [entry.text_payload for entry in pager]


def test_pages_of_entries(logging, project):
    """Pages go on where the last one ended, in both orders, also if entries arrive meanwhile."""
    write(logging, f"{project}/logs/a", "1", "2", "3")
    read = ListLogEntriesRequest(resource_names=[project], page_size=2, order_by="timestamp desc")
    first = next(logging.list_log_entries(read).pages)
    write(logging, f"{project}/logs/a", "1", "2", "3", "4")
    read.page_token = first.next_page_token
    second = next(logging.list_log_entries(read).pages)

    assert texts(first.entries) == ["3", "2"]
    assert texts(second.entries) == ["1"]


def test_entries_are_sorted_by_time_and_id(logging, project):
    """Entries with the same time are sorted by their id; of duplicates, one is listed."""
    for text in ("b", "a", "c", "a"):
        write(logging, f"{project}/logs/a", text)

    assert texts(logging.list_log_entries(resource_names=[project])) == ["a", "b", "c"]


def test_default_page_size(logging, project):
    """A page has 50 entries."""
    write(logging, f"{project}/logs/a", *(f"{number:02}" for number in range(60)))

    assert len(next(logging.list_log_entries(resource_names=[project]).pages).entries) == 50


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"resource_names": []}, "resource_names must name at least one project"),
        ({"resource_names": ["acme"]}, "Invalid resource name 'acme'"),
        ({"resource_names": ["projects/a"] * 101}, "at most 100 resources"),
        ({"page_size": -1}, "page_size must not be negative"),
        ({"order_by": "severity"}, "Unsupported order_by 'severity'"),
        ({"page_token": "x"}, "page_token must be the next_page_token of an earlier response"),
        ({"page_token": "NQ=="}, "page_token must be the next_page_token of an earlier response"),
        ({"page_token": "WyJhIiwgbnVsbCwgMSwgMiwgM10="}, "page_token must be the next_page_token"),
        ({"filter": "a=b OR AND"}, "Unparseable filter: syntax error at line 1, column 8, token 'AND'"),
    ],
)
def test_invalid_list_is_rejected(logging, fields, message):
    """Arguments that the service does not accept are INVALID_ARGUMENT."""
    with pytest.raises(exceptions.InvalidArgument, match=message):
        logging.list_log_entries({"resource_names": ["projects/a"], **fields})


def test_page_token_belongs_to_its_request(logging, project):
    """The token of a page is rejected with another filter."""
    write(logging, f"{project}/logs/a", "1", "2")
    first = next(logging.list_log_entries({"resource_names": [project], "page_size": 1}).pages)

    with pytest.raises(exceptions.InvalidArgument, match="page_token doesn't match arguments from the request"):
        logging.list_log_entries({"resource_names": [project], "filter": "x", "page_token": first.next_page_token})


@pytest.mark.parametrize(
    ("suffixes", "expected"),
    [
        (("",), ["1"]),
        (("/locations/global/buckets/_Default/views/_AllLogs",), ["1"]),
        (("/locations/global/buckets/_Required/views/_AllLogs",), []),
        (("", "-two"), ["1", "2"]),
    ],
)
def test_resources_of_entries(logging, project, suffixes, expected):
    """Entries are those of the projects; a view of the default bucket has those of its project."""
    write(logging, f"{project}/logs/a", "1")
    write(logging, f"{project}-two/logs/a", "2")

    assert texts(logging.list_log_entries(resource_names=[project + suffix for suffix in suffixes])) == expected


def test_logs_are_listed_and_deleted(emulator, logging, project):
    """A log is listed while it has entries, and its name is encoded in a URL."""
    write(logging, f"{project}/logs/run.googleapis.com%2Fstdout", "1")
    write(logging, f"{project}/logs/other", "2")
    rest, path = Rest(emulator), f"v2/{project}/logs"

    assert rest("GET", path)["logNames"] == [
        f"{project}/logs/other",
        f"{project}/logs/run.googleapis.com%2Fstdout",
    ]
    assert rest("DELETE", f"{path}/run.googleapis.com%2Fstdout") == {}
    assert list(logging.list_logs(parent=project)) == [f"{project}/logs/other"]
    assert texts(logging.list_log_entries(resource_names=[project])) == ["2"]

    with pytest.raises(exceptions.NotFound):
        logging.delete_log(log_name=f"{project}/logs/run.googleapis.com%2Fstdout")


def test_entries_before_the_deletion_are_dropped(logging, project):
    """An entry that arrives after the deletion of its log, with an earlier time, is dropped."""
    write(logging, f"{project}/logs/a", "1")
    logging.delete_log(log_name=f"{project}/logs/a")
    write(logging, f"{project}/logs/a", "2")

    assert list(logging.list_logs(parent=project)) == []


def test_resource_types_are_listed(logging):
    """The types of resources that the emulator writes entries for are described."""
    types = [descriptor.type for descriptor in logging.list_monitored_resource_descriptors({})]

    assert {"cloud_run_job", "cloud_scheduler_job"} <= set(types)


@pytest.mark.parametrize("log_name", ["", "acme", "projects/acme/logs/", "projects/acme/logs/a b"])
def test_invalid_log_name_is_rejected(logging, log_name):
    """An entry needs the name of a log."""
    with pytest.raises(exceptions.InvalidArgument):
        write(logging, log_name, "1")


@pytest.mark.parametrize(("partial", "written", "failed"), [(False, [], []), (True, ["1"], [["1"]])])
def test_partial_success(emulator, logging, project, partial, written, failed):
    """With partial_success, valid entries are written, and the error names the others by their index."""
    error = Rest(emulator).error(
        "POST",
        "v2/entries:write",
        logName=f"{project}-{partial}/logs/a",
        entries=[{"textPayload": "1"}, {"textPayload": "x" * 307_250}],
        partialSuccess=partial,
    )

    assert error["status"] == "INVALID_ARGUMENT"
    assert error["message"] == "Log entry with size 300.1K exceeds maximum size of 256.0K"
    assert [list(detail["logEntryErrors"]) for detail in error.get("details", [])] == failed
    assert texts(logging.list_log_entries(resource_names=[f"{project}-{partial}"])) == written


@pytest.fixture
def tail(emulator):
    """Return a function that opens a session, and returns the call and the list of its responses and errors."""
    with grpc.insecure_channel(emulator.grpc) as channel:
        method = channel.stream_stream(TAIL, TailLogEntriesRequest.serialize, TailLogEntriesResponse.deserialize)
        threads = []

        def opened(**fields):
            call, received = method(iter([TailLogEntriesRequest(**fields)])), []
            threads.append(threading.Thread(target=receive, args=(call, received)))
            threads[-1].start()
            return call, received

        yield opened
    for thread in threads:
        thread.join()


def receive(call, received):
    try:
        for response in call:
            received.extend(texts(response.entries))
    except grpc.RpcError as error:
        received.append(error.code().name)


def test_tail_streams_new_entries(logging, tail, project):
    """New entries that match are streamed until the client cancels the call."""
    _, others = tail(resource_names=[project], filter="severity=ERROR", buffer_window={"nanos": 1000})
    call, received = tail(resource_names=[project], filter="severity=INFO", buffer_window={"nanos": 1000})

    def arrived():
        write(logging, f"{project}/logs/a", "1", severity="INFO")
        return received

    assert eventually(arrived)[0] == "1"

    call.cancel()

    assert eventually(lambda: received[-1] == "CANCELLED")
    assert others == []


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"resource_names": ["acme"]}, "INVALID_ARGUMENT"),
        ({"resource_names": ["projects/a"], "filter": "("}, "INVALID_ARGUMENT"),
        ({"resource_names": ["projects/a"], "buffer_window": {"seconds": 61}}, "INVALID_ARGUMENT"),
    ],
)
def test_invalid_tail_is_rejected(tail, fields, code):
    """A session with invalid arguments fails at once."""
    _, received = tail(**fields)

    assert eventually(lambda: received) == [code]


@pytest.fixture
def store():
    return LogStore(Clock())


@pytest.fixture
def tails(store):
    return tailing.Tails(store, compiled)


def add(store, *texts):
    for text in texts:
        entry = Entry(log_name="projects/acme/logs/a", text_payload=text)
        entry.timestamp.seconds = int(text)
        store.add(entry)


def test_tail_is_sorted_within_the_window(store, tails):
    """Entries wait for the buffer window, and are then sent in the order of their times."""
    tail = tails.open(
        TailLogEntriesRequest(resource_names=["projects/acme"], buffer_window={"nanos": 200_000_000})
    )
    add(store, "3", "1", "2")

    assert texts(next(iter(tail)).entries) == ["1", "2", "3"]


def test_tail_reports_suppressed_entries(store, tails, monkeypatch):
    """Entries that the client does not read in time are counted in the next response."""
    monkeypatch.setattr(tailing, "MAX_BUFFERED", 2)
    tail = tails.open(TailLogEntriesRequest(resource_names=["projects/acme"], buffer_window={}))
    add(store, "1", "2", "3", "4")
    response = next(iter(tail))

    assert texts(response.entries) == ["1", "2"]
    assert [(info.reason.name, info.suppressed_count) for info in response.suppression_info] == [
        ("NOT_CONSUMED", 2)
    ]


def test_closed_tail_ends(store, tails):
    """A closed session ends its stream, and is not counted any more."""
    requests = [TailLogEntriesRequest(resource_names=["projects/acme"]) for _ in range(10)]
    opened = [tails.open(request) for request in requests]

    with pytest.raises(ServiceError, match="Too many tail sessions"):
        tails.open(requests[0])

    opened[0].close()
    opened[0].close()

    assert list(opened[0]) == []
    assert tails.open(requests[0])


@pytest.mark.parametrize(
    ("method", "request_", "permission"),
    [
        ("ListLogs", ListLogsRequest(parent="projects/acme"), "logging.logs.list"),
        ("DeleteLog", DeleteLogRequest(log_name="projects/acme/logs/a"), "logging.logs.delete"),
        ("TailLogEntries", TailLogEntriesRequest(resource_names=["projects/acme"]), "logging.logEntries.list"),
    ],
)
def test_methods_need_their_permission(method, request_, permission):
    """A caller with the permission of the method may call it, and another may not."""
    policy = {"bindings": [{"role": permission, "members": ["user:ann@example.com"]}]}
    iam = Iam(policy, Documents())
    iam.check(f"LoggingServiceV2.{method}", request_, "ann@example.com")

    with pytest.raises(ServiceError, match=permission):
        iam.check(f"LoggingServiceV2.{method}", request_, "bob@example.com")


@pytest.mark.parametrize(
    "request_",
    [
        ListLogEntriesRequest(resource_names=["projects/acme", "projects/other"]),
        TailLogEntriesRequest(resource_names=["projects/acme", "projects/other"]),
        WriteLogEntriesRequest(log_name="projects/acme/logs/a", entries=[{"log_name": "projects/other/logs/a"}]),
    ],
    ids=["list", "tail", "write"],
)
def test_every_project_of_a_request_is_checked(request_):
    """A request that names several projects needs the permission in each of them."""
    method = f"LoggingServiceV2.{type(request_).__name__.removesuffix('Request')}"
    iam = Iam({"bindings": [{"role": "roles/logging.admin", "members": ["user:ann@example.com"]}]}, Documents())
    iam.check(method, request_, "ann@example.com")
    iam.policies.set(iam_policy_pb2.SetIamPolicyRequest(resource="projects/other"))

    with pytest.raises(ServiceError, match="projects/other"):
        iam.check(method, request_, "ann@example.com")


def test_filter_of_a_tail_does_not_fail_the_writer(store):
    """The filter of a session runs in the thread of the session, also if it raises an error."""
    tails = tailing.Tails(store, lambda _: lambda entry: 1 / 0)
    tail = tails.open(TailLogEntriesRequest(resource_names=["projects/acme"], buffer_window={}))
    add(store, "1")

    assert len(store.all()) == 1
    with pytest.raises(ZeroDivisionError):
        next(iter(tail))


def test_session_whose_opening_fails_is_closed(emulator, logging, tail, monkeypatch):
    """A session is not counted if the call that opened it failed."""
    monkeypatch.setattr(tailing, "MAX_SESSIONS", 1)
    emulator.faults.fail_after("LoggingServiceV2.TailLogEntries")
    _, failed = tail(resource_names=["projects/faulty"])

    assert eventually(lambda: failed) == ["UNAVAILABLE"]

    call, received = tail(resource_names=["projects/faulty"], buffer_window={"nanos": 1000})

    def arrived():
        write(logging, "projects/faulty/logs/a", "1")
        return received

    assert eventually(arrived)[0] == "1"

    call.cancel()
