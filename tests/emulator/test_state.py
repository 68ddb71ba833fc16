"""State that survives a restart."""

from __future__ import annotations

import pytest
from google.api_core import exceptions
from google.cloud import scheduler_v1

from cloudrun_jobs.emulator import Emulator
from cloudrun_jobs.emulator.config import InvalidConfiguration
from cloudrun_jobs.emulator.frontends.ports import PortInUse
from tests.emulator.cloud import PLACE, Cloud, condition, job_of, script


def test_jobs_and_executions_are_restored(tmp_path):
    """Jobs, finished executions, their tasks and operations are restored after a restart."""
    with Emulator(state=tmp_path) as emulator:
        operation = Cloud(emulator).start(script("exit 3", task_count=2))
        before = Cloud(emulator).outcome(operation.metadata.name)
    with Emulator(state=tmp_path) as emulator:
        cloud = Cloud(emulator)

        restored = cloud.execution(before.name)
        assert restored.log_uri.startswith(f"{emulator.http}/executions/")
        before.log_uri = restored.log_uri
        assert restored == before
        assert [task.last_attempt_result.exit_code for task in cloud.tasks(before.name)] == [3, 3]
        assert emulator.clients.jobs.get_job(name=job_of(before)).execution_count == 1
        operations = emulator.clients.jobs.transport.operations_client
        assert operations.get_operation(operation.operation.name).error.code == 10


def test_interrupted_execution_has_failed(tmp_path):
    """An execution that was running when the emulator stopped has failed, with a message that explains it."""
    with Emulator(state=tmp_path, grace=0.2) as emulator:
        name = Cloud(emulator).start(script("sleep 60", task_count=2, parallelism=1)).metadata.name
        Cloud(emulator).running(name)
    with Emulator(state=tmp_path) as emulator:
        execution = Cloud(emulator).execution(name)

        assert (execution.failed_count, execution.running_count) == (2, 0)
        assert condition(execution).message == "The emulator stopped while this execution was running."


def test_scheduler_jobs_are_restored(tmp_path):
    """Scheduler jobs are restored, including their pause."""
    target = {"uri": "http://127.0.0.1/"}
    with Emulator(state=tmp_path) as emulator:
        for job_id in ("a", "b", "c"):
            job = scheduler_v1.Job(name=f"{PLACE}/jobs/{job_id}", schedule="0 * * * *", http_target=target)
            emulator.clients.scheduler.create_job(parent=PLACE, job=job)
        emulator.clients.scheduler.pause_job(name=f"{PLACE}/jobs/b")
        emulator.clients.scheduler.delete_job(name=f"{PLACE}/jobs/c")
    with Emulator(state=tmp_path) as emulator:
        states = {job.name[-1]: job.state.name for job in emulator.clients.scheduler.list_jobs(parent=PLACE)}

        assert states == {"a": "ENABLED", "b": "PAUSED"}


def test_used_state_directory_is_rejected(tmp_path):
    """A directory that another emulator uses is rejected."""
    with Emulator(state=tmp_path), pytest.raises(InvalidConfiguration, match="no other emulator uses"):
        Emulator(state=tmp_path).start()


def test_port_in_use_releases_the_state(tmp_path):
    """An emulator that cannot listen releases its state directory."""
    with Emulator() as first, pytest.raises(PortInUse):
        Emulator(state=tmp_path, port=int(first.http.rpartition(":")[2])).start()

    with Emulator(state=tmp_path) as second:
        assert second.http


def test_deleted_job_is_not_restored(tmp_path):
    """Deleted resources are not restored."""
    with Emulator(state=tmp_path) as emulator:
        execution = Cloud(emulator).finish(script("exit 0"))
        emulator.clients.jobs.delete_job(name=job_of(execution))
    with Emulator(state=tmp_path) as emulator, pytest.raises(exceptions.NotFound):
        Cloud(emulator).execution(execution.name)
