"""Faults on demand, as the real clients see them."""

from __future__ import annotations

import time

import pytest
from google.api_core import exceptions
from google.cloud import run_v2

from cloudrun_jobs.emulator.faults import UnknownFault
from tests.emulator.cloud import script


def count(cloud, job_name):
    return len(list(cloud.emulator.clients.executions.list_executions(parent=job_name)))


def test_failure_before(cloud):
    """A call that fails before its work leaves nothing behind, and the next one works."""
    created = cloud.create(script("exit 0"))
    cloud.emulator.faults.fail("Jobs.RunJob")

    with pytest.raises(exceptions.ServiceUnavailable):
        cloud.emulator.clients.jobs.run_job(name=created.name)

    assert count(cloud, created.name) == 0
    assert cloud.emulator.clients.jobs.run_job(name=created.name).result().succeeded_count == 1


def test_failure_after(cloud):
    """A RunJob whose answer is lost has started an execution all the same."""
    created = cloud.create(script("exit 0"))
    cloud.emulator.faults.fail_after("Jobs.RunJob", code="INTERNAL")

    with pytest.raises(exceptions.InternalServerError):
        cloud.emulator.clients.jobs.run_job(name=created.name)

    assert count(cloud, created.name) == 1


def test_latency_beyond_the_deadline(cloud):
    """A RunJob that answers too late has started an execution too."""
    created = cloud.create(script("exit 0"))
    cloud.emulator.faults.delay("Jobs.RunJob", seconds=1.0, times=1)

    with pytest.raises(exceptions.DeadlineExceeded):
        cloud.emulator.clients.jobs.run_job(run_v2.RunJobRequest(name=created.name), timeout=0.3)

    assert count(cloud, created.name) == 1


def test_quota(cloud):
    """An exhausted quota answers RESOURCE_EXHAUSTED in the words of the service."""
    created = cloud.create(script("exit 0"))
    cloud.emulator.faults.exhaust("Jobs.RunJob")

    with pytest.raises(exceptions.ResourceExhausted, match="Quota exceeded for quota metric 'Job run requests'"):
        cloud.emulator.clients.jobs.run_job(name=created.name)


def test_times(cloud):
    """A plan holds as often as it says."""
    created = cloud.create(script("exit 0"))
    cloud.emulator.faults.fail("Jobs.GetJob", times=2)
    get = cloud.emulator.clients.jobs.get_job

    for _ in range(2):
        with pytest.raises(exceptions.ServiceUnavailable):
            get(name=created.name)

    assert get(name=created.name).name == created.name


def test_flaky_polls_are_survived(cloud):
    """The client's own polling of an operation gets over a service that is away for a moment."""
    operation = cloud.start(script("sleep 0.2"))
    cloud.emulator.faults.fail("Operations.GetOperation", times=2)

    assert operation.result().succeeded_count == 1


def test_cold_start_waits_for_the_clock(cloud):
    """A slow cold start lasts as long as the emulator's clock says."""
    cloud.emulator.clock.freeze()
    cloud.emulator.faults.cold_start(90)
    operation = cloud.start(script("exit 0"))

    assert not cloud.execution(operation.metadata.name).start_time

    cloud.emulator.clock.advance(90)

    execution = cloud.outcome(operation.metadata.name)
    started = next(found for found in execution.conditions if found.type_ == "Started")
    assert started.message == "Started deployed execution in 1m30s."


def test_unknown_method(cloud):
    """A plan for a method that does not exist is refused, and the message lists those that do."""
    with pytest.raises(UnknownFault, match=r"Jobs\.RunJob"):
        cloud.emulator.faults.fail("Jobs.Run")


def test_cleared(cloud):
    """Plans that were not used can be dropped."""
    cloud.emulator.faults.fail("*", times=None)
    cloud.emulator.faults.clear()

    assert cloud.create(script("exit 0")).name


def test_task_timeout_on_the_frozen_clock(cloud):
    """The time limit of a task runs on the emulator's clock: a week passes at once."""
    cloud.emulator.clock.freeze()
    operation = cloud.start(script("sleep 60", timeout="604800s"))
    cloud.running(operation.metadata.name)
    begun = time.monotonic()
    cloud.emulator.clock.advance(604800)

    assert cloud.outcome(operation.metadata.name).failed_count == 1
    assert time.monotonic() - begun < 20
