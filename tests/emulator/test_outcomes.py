"""The outcomes of executions: operations, conditions and counts."""

from __future__ import annotations

import signal
import urllib.request
from datetime import timedelta

import pytest
from google.api_core import exceptions
from google.cloud import run_v2

from tests.emulator.cloud import condition, job_of, script

State = run_v2.Condition.State
Reason = run_v2.Condition.ExecutionReason


def test_success_completes_the_operation(cloud):
    """If all tasks exit 0, the execution succeeds and is the result of the operation."""
    execution = cloud.start(script("exit 0", task_count=2)).result()

    assert execution.succeeded_count == execution.task_count == 2
    assert condition(execution).state == State.CONDITION_SUCCEEDED
    assert condition(execution).message.startswith("Execution completed successfully in ")


def test_conditions_of_a_success(cloud):
    """A successful execution has conditions for provisioning, import, start and completion."""
    execution = cloud.finish(script("exit 0"))

    messages = {found.type_: found.message for found in execution.conditions}
    assert set(messages) == {"Completed", "ResourcesAvailable", "ContainerReady", "Started"}
    assert messages["ResourcesAvailable"] == "Provisioned imported containers."
    assert messages["ContainerReady"].startswith("Imported container image in ")
    assert messages["Started"].startswith("Started deployed execution in ")


def test_exit_code_fails_the_operation(cloud):
    """A non-zero exit code fails the operation with ABORTED; the message names the code."""
    operation = cloud.start(script("exit 3"))

    with pytest.raises(exceptions.Aborted) as raised:
        operation.result()

    task_id = f"{operation.metadata.name.rpartition('/')[2]}-task0"
    message = f"Task {task_id} failed with exit code: 3 and message: The container exited with an error."
    assert raised.value.message == message
    assert condition(operation.metadata).message == message
    assert condition(operation.metadata).execution_reason == Reason.NON_ZERO_EXIT_CODE
    assert operation.metadata.failed_count == 1


def test_task_reports_exit_code(cloud):
    """The last attempt's result contains the exit code and the status."""
    execution = cloud.finish(script("exit 3"))

    [task] = cloud.tasks(execution.name)
    assert task.last_attempt_result.exit_code == 3
    assert task.last_attempt_result.status.code == 10
    assert task.last_attempt_result.status.message == "The container exited with an error."


@pytest.mark.parametrize(
    "number",
    [n for n in signal.valid_signals() if n not in {signal.SIGCHLD, signal.SIGCONT, signal.SIGURG, signal.SIGWINCH,
     signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU}][:31],
)  # fmt: skip
def test_task_reports_signal(cloud, number):
    """A task killed by a signal reports the signal and exit code 0."""
    execution = cloud.finish(script(f"ulimit -c 0; kill -{int(number)} $$; sleep 30"))

    [task] = cloud.tasks(execution.name)
    assert task.last_attempt_result.term_signal == number
    assert task.last_attempt_result.exit_code == 0
    assert f"Container terminated on signal {int(number)}." in cloud.output("varlog%2Fsystem")


def test_timeout_fails_the_operation(cloud):
    """An attempt that exceeds the timeout fails the operation with DEADLINE_EXCEEDED."""
    operation = cloud.start(script("sleep 60", timeout=timedelta(seconds=1)))

    with pytest.raises(
        exceptions.DeadlineExceeded, match="exit code: 0 and message: The configured timeout was reached"
    ):
        operation.result()

    assert operation.metadata.failed_count == 1
    assert condition(operation.metadata).execution_reason == Reason.EXECUTION_REASON_UNDEFINED


def test_timeout_is_logged(cloud):
    """The platform logs that it terminates a task at its timeout."""
    cloud.finish(script("sleep 60", timeout=timedelta(seconds=1)))

    line = "Terminating task because it has reached the maximum timeout of 1 seconds."
    assert line in cloud.output("varlog%2Fsystem")


def test_timeout_gives_time_to_clean_up(cloud):
    """At its timeout, a task gets SIGTERM and can still write output."""
    cloud.finish(script("trap 'echo bye; exit 0' TERM; sleep 60 & wait", timeout=timedelta(seconds=1)))

    assert cloud.output() == ["bye"]


def test_task_that_ignores_sigterm_is_killed(cloud):
    """A task that ignores SIGTERM is killed after the grace period."""
    execution = cloud.finish(script("trap '' TERM; while :; do sleep 1; done", timeout=timedelta(seconds=1)))

    assert execution.failed_count == 1


def test_out_of_memory_fails_the_operation(cloud):
    """The fault `out_of_memory` is reported as an exceeded memory limit."""
    cloud.emulator.faults.out_of_memory()
    operation = cloud.start(script("sleep 60"))

    with pytest.raises(exceptions.GoogleAPICallError, match="The configured memory limit was reached"):
        operation.result()


def test_cancelled_operation_has_no_error(cloud):
    """The operation of a cancelled execution has no error; only the counts show the cancellation."""
    operation = cloud.start(script("sleep 60", task_count=2, parallelism=1))
    cloud.running(operation.metadata.name)
    cloud.emulator.clients.executions.cancel_execution(name=operation.metadata.name)

    execution = operation.result()

    assert (execution.succeeded_count, execution.cancelled_count, execution.failed_count) == (0, 2, 0)
    assert condition(execution).state == State.CONDITION_FAILED
    assert condition(execution).message == "Cancelled by user."
    assert condition(execution).execution_reason == Reason.CANCELLED


def test_other_tasks_continue_when_one_fails(cloud):
    """An execution fails only after all of its tasks have run."""
    execution = cloud.finish(script("exit $((CLOUD_RUN_TASK_INDEX == 0))", task_count=4, parallelism=1))

    assert (execution.succeeded_count, execution.failed_count) == (3, 1)


def test_retries_count_tasks(cloud):
    """A failed task is retried with the next attempt number; `retried_count` counts it once."""
    execution = cloud.finish(script("echo $CLOUD_RUN_TASK_ATTEMPT; exit 1", retries=2))

    assert cloud.output() == ["0", "1", "2"]
    assert (execution.retried_count, execution.failed_count) == (1, 1)
    assert cloud.tasks(execution.name)[0].retried == 2


@pytest.mark.parametrize("kill", ["kill -9 $$", "kill -15 $$", "kill -6 $$"])
@pytest.mark.parametrize("killed", [1, 2])
def test_killed_attempts_count_tasks(cloud, kill, killed):
    """`retried_count` counts the tasks that were retried, however often their attempts were killed."""
    text = f'[ "$CLOUD_RUN_TASK_INDEX" = 0 ] || [ "$CLOUD_RUN_TASK_ATTEMPT" -ge {killed} ] || {{ {kill}; }}'
    execution = cloud.finish(script(text, retries=3, task_count=3))

    assert (execution.retried_count, execution.succeeded_count) == (2, 3)
    assert [task.retried for task in cloud.tasks(execution.name)] == [0, killed, killed]


@pytest.mark.parametrize("fault", ["out_of_memory", "infrastructure_retry"])
def test_attempts_killed_by_the_platform(cloud, fault):
    """Out of memory is a retry of its task; a restart after a failure of the machine is none."""
    getattr(cloud.emulator.faults, fault)(times=2)
    execution = cloud.finish(script("sleep 0.2", retries=3, task_count=3, parallelism=1))

    expected = {"out_of_memory": (1, [2, 0, 0]), "infrastructure_retry": (0, [0, 0, 0])}
    assert (execution.retried_count, [task.retried for task in cloud.tasks(execution.name)]) == expected[fault]


def test_successful_retry_succeeds(cloud):
    """A task that succeeds on a retry has succeeded."""
    execution = cloud.finish(script("exit $((CLOUD_RUN_TASK_ATTEMPT < 1))", retries=3))

    assert (execution.succeeded_count, execution.retried_count) == (1, 1)


def test_infrastructure_retry_is_not_counted(cloud):
    """A task whose machine fails is restarted even without retries left, and not counted as retried."""
    cloud.emulator.faults.infrastructure_retry()
    execution = cloud.finish(script("sleep 0.2"))

    assert (execution.succeeded_count, execution.retried_count) == (1, 0)
    assert cloud.tasks(execution.name)[0].retried == 0


def test_missing_command_exits_with_127(cloud):
    """A missing command fails with exit code 127, as in a shell, and the reason is logged."""
    operation = cloud.start(script("", retries=0))
    operation.result()
    job = cloud.emulator.clients.jobs.get_job(name=job_of(operation.metadata))
    job.template.template.containers[0].command = ["/nowhere/to/be/found"]
    cloud.emulator.clients.jobs.update_job(job=job)

    with pytest.raises(exceptions.Aborted, match="exit code: 127"):
        cloud.emulator.clients.jobs.run_job(name=job.name).result()

    assert any("failed to start" in line for line in cloud.output("varlog%2Fsystem"))


def with_secret(name, version="latest"):
    """Return a job with a variable that refers to a secret."""
    declared = script("exit 0", task_count=2)
    source = run_v2.EnvVarSource(secret_key_ref=run_v2.SecretKeySelector(secret=name, version=version))
    declared.template.template.containers[0].env = [run_v2.EnvVar(name="TOKEN", value_source=source)]
    return declared


def test_missing_secret_fails_the_execution(cloud):
    """An execution that refers to a missing secret fails before any task starts."""
    execution = cloud.finish(with_secret("nowhere"))

    assert condition(execution).message == "Secret projects/acme/secrets/nowhere/versions/latest was not found"
    assert condition(execution).reason == run_v2.Condition.CommonReason.SECRETS_ACCESS_CHECK_FAILED
    assert not execution.start_time


@pytest.mark.parametrize("name", ["db-password", "projects/other/secrets/db-password"])
def test_log_of_a_missing_secret_says_how_to_give_it(cloud, name):
    """The log of the execution and its page name the option and the variable, once for all tasks."""
    execution = cloud.finish(with_secret(name, "3"))

    [line] = cloud.output("varlog%2Fsystem")
    assert line.startswith("The emulator has no value for version '3' of the secret 'db-password'.")
    assert '--secrets FILE, a JSON object such as {"db-password": "VALUE"}' in line
    assert "CLOUDRUN_EMULATOR_SECRET_DB_PASSWORD" in line
    with urllib.request.urlopen(execution.log_uri) as page:
        assert "--secrets FILE" in page.read().decode()


def test_job_refers_to_its_newest_execution(cloud):
    """A job refers to its newest execution and that execution's outcome."""
    execution = cloud.finish(script("exit 1"))

    job = cloud.emulator.clients.jobs.get_job(name=job_of(execution))
    assert job.execution_count == 1
    assert job.latest_created_execution.name == execution.name.rpartition("/")[2]
    status = run_v2.ExecutionReference.CompletionStatus.EXECUTION_FAILED
    assert job.latest_created_execution.completion_status == status
