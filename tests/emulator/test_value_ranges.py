"""Values that protobuf encodes and JSON cannot, over gRPC."""

from __future__ import annotations

import pytest
from google.api_core import exceptions
from google.cloud import run_v2, tasks_v2
from google.cloud.logging_v2.types import LogEntry, WriteLogEntriesRequest
from google.protobuf import duration_pb2, json_format, struct_pb2, timestamp_pb2
from hypothesis import given
from hypothesis import strategies as st

from cloudrun_jobs.emulator import value_ranges
from cloudrun_jobs.emulator.errors import ServiceError
from tests.emulator.cloud import PLACE, script

NUMBERS = st.sampled_from([0, 1, -1, 10**9 - 1, 10**9, -(10**9), 2**31 - 1])
SECONDS = st.sampled_from([0, 1, -1, 315_576_000_000, 315_576_000_001, 253_402_300_799, 253_402_300_800, 10**15])


def _renders(message):
    try:
        json_format.MessageToJson(message)
    except ValueError:
        return False
    return True


def _passes(message):
    try:
        value_ranges.check(message)
    except ServiceError:
        return False
    return True


@given(SECONDS, st.booleans(), NUMBERS, st.sampled_from([timestamp_pb2.Timestamp, duration_pb2.Duration]))
def test_times_that_pass_have_json(seconds, negative, nanos, kind):
    """A time passes if, and only if, it can be rendered as JSON."""
    message = kind(seconds=-seconds if negative else seconds, nanos=nanos)

    assert _passes(message) == _renders(message)


@given(st.floats())
def test_numbers_that_pass_have_json(number):
    """A number in a structure passes if, and only if, it can be rendered as JSON."""
    message = struct_pb2.Struct(fields={"a": struct_pb2.Value(list_value={"values": [{"number_value": number}]})})

    assert _passes(message) == _renders(message)


def _job(cloud):
    job = script("exit 0")
    run_v2.Job.pb(job).template.template.timeout.seconds = 10**15
    cloud.emulator.clients.jobs.create_job(parent=PLACE, job=job, job_id="work")


def _entry(cloud):
    entry = LogEntry(log_name="projects/acme/logs/a", text_payload="a")
    LogEntry.pb(entry).timestamp.seconds = 10**15
    cloud.emulator.clients.logging.write_log_entries(WriteLogEntriesRequest(entries=[entry]))


def _queue(cloud):
    limits = tasks_v2.RateLimits(max_dispatches_per_second=float("nan"))
    queue = tasks_v2.Queue(name=f"{PLACE}/queues/mail", rate_limits=limits)
    cloud.emulator.clients.cloud_tasks.create_queue(parent=PLACE, queue=queue)


@pytest.mark.parametrize(
    ("call", "field"),
    [
        (_job, "job.template.template.timeout"),
        (_entry, "entries.timestamp"),
        (_queue, "queue.rate_limits.max_dispatches_per_second"),
    ],
)
def test_value_out_of_range_is_rejected(cloud, call, field):
    """A value that JSON cannot represent is rejected, and the error names the field."""
    with pytest.raises(exceptions.InvalidArgument, match=f"Invalid value at '{field}'"):
        call(cloud)
