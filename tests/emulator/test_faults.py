"""Fault injection, tested with the real clients."""

from __future__ import annotations

import time

import pytest
from google.api_core import exceptions
from google.cloud import run_v2

from cloudrun_jobs.emulator.faults import InvalidFault
from tests.emulator.cloud import script


def count(cloud, job_name):
    return len(list(cloud.emulator.clients.executions.list_executions(parent=job_name)))


def test_fail_does_no_work(cloud):
    """`fail` prevents the work; the next call succeeds."""
    created = cloud.create(script("exit 0"))
    cloud.emulator.faults.fail("Jobs.RunJob")

    with pytest.raises(exceptions.ServiceUnavailable):
        cloud.emulator.clients.jobs.run_job(name=created.name)

    assert count(cloud, created.name) == 0
    assert cloud.emulator.clients.jobs.run_job(name=created.name).result().succeeded_count == 1


def test_fail_after_does_the_work(cloud):
    """A RunJob with `fail_after` starts an execution."""
    created = cloud.create(script("exit 0"))
    cloud.emulator.faults.fail_after("Jobs.RunJob", code="INTERNAL")

    with pytest.raises(exceptions.InternalServerError):
        cloud.emulator.clients.jobs.run_job(name=created.name)

    assert count(cloud, created.name) == 1


def test_delayed_call_does_the_work(cloud):
    """A RunJob that responds after the client's deadline has started an execution."""
    created = cloud.create(script("exit 0"))
    cloud.emulator.faults.delay("Jobs.RunJob", seconds=1.0, times=1)

    with pytest.raises(exceptions.DeadlineExceeded):
        cloud.emulator.clients.jobs.run_job(run_v2.RunJobRequest(name=created.name), timeout=0.3)

    assert count(cloud, created.name) == 1


def test_exhausted_quota_is_reported(cloud):
    """An exhausted quota fails with RESOURCE_EXHAUSTED and the message of the service."""
    created = cloud.create(script("exit 0"))
    cloud.emulator.faults.exhaust("Jobs.RunJob")

    with pytest.raises(exceptions.ResourceExhausted, match="Quota exceeded for quota metric 'Job run requests'"):
        cloud.emulator.clients.jobs.run_job(name=created.name)


def test_times_limits_a_fault(cloud):
    """A fault occurs `times` times."""
    created = cloud.create(script("exit 0"))
    cloud.emulator.faults.fail("Jobs.GetJob", times=2)
    get = cloud.emulator.clients.jobs.get_job

    for _ in range(2):
        with pytest.raises(exceptions.ServiceUnavailable):
            get(name=created.name)

    assert get(name=created.name).name == created.name


def test_client_survives_failed_polls(cloud):
    """The client's polling of an operation survives transient errors."""
    operation = cloud.start(script("sleep 0.2"))
    cloud.emulator.faults.fail("Operations.GetOperation", times=2)

    assert operation.result().succeeded_count == 1


def test_cold_start_waits_for_the_clock(cloud):
    """A cold start lasts for its duration on the emulator's clock."""
    cloud.emulator.clock.freeze()
    cloud.emulator.faults.cold_start(90)
    operation = cloud.start(script("exit 0"))

    assert not cloud.execution(operation.metadata.name).start_time

    cloud.emulator.clock.advance(90)

    execution = cloud.outcome(operation.metadata.name)
    started = next(found for found in execution.conditions if found.type_ == "Started")
    assert started.message == "Started deployed execution in 1m30s."


def test_unknown_method_is_rejected(cloud):
    """A fault for an unknown method is rejected with a list of the known methods."""
    with pytest.raises(InvalidFault, match=r"Jobs\.RunJob"):
        cloud.emulator.faults.fail("Jobs.Run")


def test_clear_drops_faults(cloud):
    """`clear` drops planned faults."""
    cloud.emulator.faults.fail("*", times=None)
    cloud.emulator.faults.clear()

    assert cloud.create(script("exit 0")).name


def test_task_timeout_follows_frozen_clock(cloud):
    """A task's timeout follows the emulator's clock: a week passes at once."""
    cloud.emulator.clock.freeze()
    operation = cloud.start(script("sleep 60", timeout="604800s"))
    cloud.running(operation.metadata.name)
    started = time.monotonic()
    cloud.emulator.clock.advance(604800)

    assert cloud.outcome(operation.metadata.name).failed_count == 1
    assert time.monotonic() - started < 20
