"""Misbehaving tasks, and the cleanup of their processes."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest

from cloudrun_jobs.emulator import Emulator
from tests.emulator.cloud import Cloud, eventually, job, job_of, script

ON_LINUX = pytest.mark.skipif(sys.platform != "linux", reason="needs a child subreaper")


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except OSError:
        return False


def test_children_end_with_their_task(cloud):
    """Background children of a task are killed when the task ends."""
    cloud.finish(script("sleep 300 & echo $!"))
    [pid] = cloud.output()

    eventually(lambda: not alive(int(pid)))

    assert not alive(int(pid))


@ON_LINUX
def test_daemons_end_with_their_task(cloud):
    """A child that left the task's process group is killed with its task, but not with another one."""
    other = cloud.start(script("sleep 300"), "other")
    cloud.running(other.metadata.name)
    cloud.finish(script("setsid sh -c 'echo $$; exec sleep 300' & sleep 0.3"))
    [pid] = cloud.output()

    eventually(lambda: not alive(int(pid)))

    assert cloud.execution(other.metadata.name).running_count == 1


def test_task_may_close_its_output(cloud):
    """A task that closes its output still reports its exit code."""
    execution = cloud.finish(script("exec >&- 2>&-; sleep 0.3; exit 5"))

    assert cloud.tasks(execution.name)[0].last_attempt_result.exit_code == 5


def test_unbounded_output_is_truncated(cloud):
    """A gigabyte of output is truncated; meanwhile the emulator responds and its memory stays bounded."""
    write = "import os; line = b'x' * 65535 + b'\\n'\nfor _ in range(16384): os.write(1, line)"
    operation = cloud.start(job(sys.executable, "-c", write))
    cloud.running(operation.metadata.name)

    assert cloud.execution(operation.metadata.name).running_count == 1
    assert cloud.outcome(operation.metadata.name).succeeded_count == 1
    assert sum(map(len, cloud.output())) < 10 * 1024 * 1024
    assert any("dropped" in line for line in cloud.output("varlog%2Fsystem"))


def test_undecodable_output_is_kept(cloud):
    """Output that is not valid UTF-8 and has no newline is kept."""
    cloud.finish(script(r"printf 'a\377b'"))

    assert cloud.output() == ["a\ufffdb"]


def test_memory_limit_is_enforced():
    """With `enforce_memory`, a task beyond its memory limit is killed and reports the service's message."""
    declared = job(sys.executable, "-c", "x = b'x' * (200 << 20); import time; time.sleep(60)")
    declared.template.template.containers[0].resources.limits = {"cpu": "80m", "memory": "128Mi"}
    with Emulator(enforce_memory=True) as emulator:
        cloud = Cloud(emulator)
        execution = cloud.finish(declared)

        [task] = cloud.tasks(execution.name)
        assert task.last_attempt_result.status.message == "The configured memory limit was reached."
        [line] = cloud.output("varlog%2Fsystem")
        assert line.startswith("Memory limit of 128 MiB exceeded with ")


def test_stop_kills_every_task():
    """When stop() returns, no task is running."""
    with Emulator() as emulator:
        cloud = Cloud(emulator)
        cloud.start(script("trap '' TERM; echo $$; while :; do sleep 1; done", task_count=3))
        pids = eventually(lambda: cloud.output() if len(cloud.output()) == 3 else None)

    assert [pid for pid in pids if alive(int(pid))] == []


def test_killed_supervisor_fails_executions(cloud):
    """If the supervisor is killed, its tasks end, their execution fails, and the next one logs what to do."""
    operation = cloud.start(script("echo $$; sleep 300"))
    [pid] = eventually(cloud.output)
    os.kill(cloud.emulator.supervisor_pid, signal.SIGKILL)

    assert cloud.outcome(operation.metadata.name).failed_count == 1
    assert not alive(int(pid))

    again = cloud.emulator.clients.jobs.run_job(name=job_of(operation.metadata))
    cloud.outcome(again.metadata.name)

    assert any("restart the emulator" in line for line in cloud.output("varlog%2Fsystem"))


def test_wide_execution_completes(cloud):
    """A wide execution runs and counts every task."""
    execution = cloud.finish(job("/bin/true", task_count=200, parallelism=20))

    assert execution.succeeded_count == 200
