"""Executions: their programs, environment, parallelism, cancellation and retention."""

from __future__ import annotations

import json
import sys
import threading
from pathlib import Path

import pytest
from google.api_core import exceptions
from google.cloud import run_v2
from google.protobuf import duration_pb2, json_format

from cloudrun_jobs.emulator import Emulator
from cloudrun_jobs.emulator.closed_world import CLOSED_NAMES
from cloudrun_jobs.emulator.config import Config, bin_directory
from cloudrun_jobs.emulator.engine.attempts import Container
from cloudrun_jobs.emulator.engine.lifecycle import ExecutionLifecycle
from tests.emulator.cloud import PLACE, Cloud, condition, eventually, job, job_of, script

PYTHON = str(bin_directory(Path("/nowhere")) / "python")
PRINT_ENVIRONMENT = "import json, os; print(json.dumps(dict(os.environ)))"


def test_task_environment(cloud):
    """A task gets the job's variables, those of Cloud Run and those of the closed world, and no others."""
    execution = cloud.finish(job(sys.executable, "-c", PRINT_ENVIRONMENT, env={"GREETING": "hello"}))

    [line] = [entry for entry in cloud.emulator.logs.all() if entry.HasField("json_payload")]
    environment = dict(line.json_payload)
    assert environment.pop("PATH").endswith(":/usr/local/bin:/usr/bin:/bin")
    assert {name for name in environment if not name.startswith("LC_")} - CLOSED_NAMES == {
        "GREETING",
        "CLOUD_RUN_JOB",
        "CLOUD_RUN_EXECUTION",
        "CLOUD_RUN_TASK_INDEX",
        "CLOUD_RUN_TASK_ATTEMPT",
        "CLOUD_RUN_TASK_COUNT",
    }
    assert environment["GREETING"] == "hello"
    assert environment["CLOUDRUN_EMULATOR_HOST"] == cloud.emulator.grpc
    assert environment["CLOUD_RUN_JOB"] == "work"
    assert environment["CLOUD_RUN_EXECUTION"] == execution.name.rpartition("/")[2]
    assert environment["CLOUD_RUN_TASK_COUNT"] == "1"


def test_parents_are_short_ids(cloud):
    """An execution names its job, and a task its job and execution, by their short ids."""
    execution = cloud.finish(script("exit 0"))
    [task] = cloud.tasks(execution.name)

    assert execution.job == task.job == "work"
    assert task.execution == execution.name.rpartition("/")[2]


def test_args_are_replaced_and_env_is_merged(cloud):
    """Overrides replace the arguments and merge the environment by name."""
    declared = job("/bin/sh", "-c", 'echo "$A $B $0"', env={"A": "1", "B": "2"})
    declared.template.template.containers[0].args = ["declared"]
    container = {"args": ["given"], "env": [{"name": "B", "value": "3"}]}

    execution = cloud.finish(declared, container_overrides=[container])

    assert cloud.output() == ["1 3 given"]
    assert list(execution.template.containers[0].args) == ["given"]


def test_clear_args_removes_arguments(cloud):
    """An override can remove all arguments."""
    declared = script('echo "$0"')
    declared.template.template.containers[0].args = ["declared"]

    cloud.finish(declared, container_overrides=[{"clear_args": True}])

    assert cloud.output() == ["/bin/sh"]


def test_override_of_unknown_container_is_rejected(cloud):
    """With more than one container, an override must name one of them."""
    declared = script("exit 0")
    declared.template.template.containers = [
        run_v2.Container(name="main", image="a", command=["/bin/true"]),
        run_v2.Container(name="side", image="b"),
    ]

    with pytest.raises(exceptions.InvalidArgument, match="matches no container"):
        cloud.start(declared, container_overrides=[{"name": "other"}])


def test_task_count_and_timeout_can_be_overridden(cloud):
    """Overrides can change the task count and the timeout of an execution."""
    execution = cloud.finish(script("exit 0"), task_count=3, timeout="30s")

    assert execution.succeeded_count == 3
    assert execution.template.timeout.total_seconds() == 30


def test_tasks_are_numbered_from_zero(cloud):
    """The tasks of an execution are numbered from 0."""
    execution = cloud.finish(script("echo $CLOUD_RUN_TASK_INDEX", task_count=5))

    assert sorted(cloud.output()) == ["0", "1", "2", "3", "4"]
    assert [task.index for task in cloud.tasks(execution.name)] == [0, 1, 2, 3, 4]
    assert cloud.tasks(execution.name)[4].name.endswith("-task4")


def test_parallelism_limits_concurrent_tasks(cloud, tmp_path):
    """At most `parallelism` tasks of an execution run at once."""
    wait = f"mkdir {tmp_path}/$$; ls {tmp_path} | wc -l; sleep 0.1; rmdir {tmp_path}/$$"

    cloud.finish(script(wait, task_count=6, parallelism=2))

    assert {int(line) for line in cloud.output()} <= {1, 2}


def test_operation_follows_the_execution(cloud):
    """The metadata of an unfinished operation is the execution in its current state."""
    operation = cloud.start(script("sleep 30"))
    cloud.running(operation.metadata.name)

    assert not operation.done()
    assert operation.metadata.running_count == 1
    assert condition(operation.metadata).message == "Waiting for execution to complete."


def test_operation_is_polled_and_listed(cloud):
    """An operation can be polled until it is done, and is listed."""
    operation = cloud.start(script("sleep 0.3")).operation
    operations = cloud.emulator.clients.jobs.transport.operations_client

    eventually(lambda: operations.get_operation(operation.name).done)

    assert operation.name in [found.name for found in operations.list_operations(PLACE, "")]


def test_wait_operation_times_out(cloud):
    """WaitOperation returns an unfinished operation after the requested timeout."""
    client = cloud.emulator.clients.jobs
    operation = cloud.start(script("sleep 30")).operation

    response = client.wait_operation({"name": operation.name, "timeout": duration_pb2.Duration(nanos=200_000_000)})

    # The gRPC client returns this response undecoded.
    assert type(operation).FromString(response).done is False


def test_deleted_operation_keeps_its_work(cloud):
    """A deleted operation is not found, and its execution continues."""
    operation = cloud.start(script("sleep 0.2"))
    operations = cloud.emulator.clients.jobs.transport.operations_client
    operations.delete_operation(operation.operation.name)

    with pytest.raises(exceptions.NotFound):
        operations.get_operation(operation.operation.name)

    assert cloud.outcome(operation.metadata.name).succeeded_count == 1


def test_finished_execution_cannot_be_cancelled(cloud):
    """A finished execution cannot be cancelled."""
    execution = cloud.finish(script("exit 0"))

    with pytest.raises(exceptions.FailedPrecondition) as raised:
        cloud.emulator.clients.executions.cancel_execution(name=execution.name)

    short = execution.name.rpartition("/")[2]
    assert raised.value.message == f"Execution '{short}' cannot be cancelled because it is not running."


def test_cancel_lets_tasks_clean_up(cloud):
    """A cancelled task gets SIGTERM and a grace period."""
    operation = cloud.start(script("trap 'echo bye; exit 0' TERM; echo hi; sleep 60 & wait", retries=3))
    eventually(lambda: cloud.output() == ["hi"])
    cloud.emulator.clients.executions.cancel_execution(name=operation.metadata.name)

    assert cloud.outcome(operation.metadata.name).cancelled_count == 1
    assert cloud.output() == ["hi", "bye"]


def test_cancelled_task_is_not_retried_after_timeout(cloud):
    """A task that is cancelled during its timeout's grace period is not retried."""
    stubborn = script("echo up; trap '' TERM; while :; do sleep 0.1; done", retries=3, timeout="1s")
    operation = cloud.start(stubborn)
    eventually(lambda: any("maximum timeout" in line for line in cloud.output("varlog%2Fsystem")))
    cloud.emulator.clients.executions.cancel_execution(name=operation.metadata.name)

    assert cloud.outcome(operation.metadata.name).cancelled_count == 1
    assert cloud.output() == ["up"]


def test_deleted_execution_is_stopped(cloud):
    """A deleted execution is stopped and not found; its operation completes without an error."""
    operation = cloud.start(script("sleep 60"))
    cloud.running(operation.metadata.name)
    cloud.emulator.clients.executions.delete_execution(name=operation.metadata.name)

    with pytest.raises(exceptions.NotFound) as raised:
        cloud.execution(operation.metadata.name)

    short = operation.metadata.name.rpartition("/")[2]
    assert raised.value.message == (
        f"Resource '{short}' of kind 'EXECUTION' in region 'europe-west4' in project 'acme' does not exist."
    )
    assert operation.result().delete_time


def test_deleting_a_job_deletes_its_executions(cloud):
    """Deleting a job deletes its executions, including running ones."""
    operation = cloud.start(script("sleep 60"))
    cloud.running(operation.metadata.name)
    cloud.emulator.clients.jobs.delete_job(name=job_of(operation.metadata)).result()

    with pytest.raises(exceptions.NotFound):
        cloud.execution(operation.metadata.name)


def test_listing_is_newest_first_and_paged(cloud):
    """Executions are listed newest first, page by page."""
    first = cloud.finish(script("exit 0"))
    second = cloud.emulator.clients.jobs.run_job(name=job_of(first)).metadata

    request = run_v2.ListExecutionsRequest(parent=job_of(first), page_size=1)
    listed = [execution.name for execution in cloud.emulator.clients.executions.list_executions(request)]

    assert listed == [second.name, first.name]


def test_retention_drops_oldest_executions():
    """Beyond the retention limit, the oldest finished executions of a job are dropped."""
    with Emulator(retention=2) as emulator:
        cloud = Cloud(emulator)
        oldest = cloud.finish(script("exit 0"))
        for _ in range(2):
            cloud.outcome(emulator.clients.jobs.run_job(name=job_of(oldest)).metadata.name)

        assert len(list(emulator.clients.executions.list_executions(parent=job_of(oldest)))) == 2
        with pytest.raises(exceptions.NotFound):
            cloud.execution(oldest.name)


def test_prune_drops_a_finished_execution(cloud):
    """`prune` drops a finished execution."""
    execution = cloud.finish(script("exit 0"))
    cloud.emulator.prune(execution.name)

    with pytest.raises(exceptions.NotFound):
        cloud.execution(execution.name)


@pytest.mark.parametrize("field", ["start_execution_token", "run_execution_token"])
def test_execution_token_starts_one_execution(cloud, field):
    """An execution token starts one execution with that name."""
    declared = script("exit 0")
    setattr(declared, field, "first")
    created = cloud.create(declared)
    cloud.emulator.clients.jobs.update_job(job=created).result()

    assert cloud.outcome(f"{created.name}/executions/work-first").succeeded_count == 1
    assert len(list(cloud.emulator.clients.executions.list_executions(parent=created.name))) == 1


def test_validate_only_starts_nothing(cloud):
    """A `validate_only` request starts nothing, and its operation cannot be fetched."""
    created = cloud.create(script("exit 0"))
    client = cloud.emulator.clients.jobs
    operation = client.run_job(run_v2.RunJobRequest(name=created.name, validate_only=True))

    with pytest.raises(exceptions.NotFound):
        client.transport.operations_client.get_operation(operation.operation.name)

    assert list(cloud.emulator.clients.executions.list_executions(parent=created.name)) == []


def test_maintenance_sends_sigtstp_and_sigcont(cloud):
    """Maintenance sends SIGTSTP to a task, and SIGCONT afterwards."""
    command = "trap 'echo stop' TSTP; trap 'echo cont; exit 0' CONT; echo up; while :; do sleep 0.05; done"
    operation = cloud.start(script(command))
    eventually(lambda: cloud.output() == ["up"])
    cloud.emulator.maintain(operation.metadata.name, seconds=0.3)

    assert cloud.outcome(operation.metadata.name).succeeded_count == 1
    assert cloud.output() == ["up", "stop", "cont"]


def test_image_runs_in_its_directory(tmp_path):
    """An image runs in its directory, which is found with or without the tag."""
    with Emulator(images={"europe-docker.pkg.dev/acme/app": tmp_path}) as emulator:
        cloud = Cloud(emulator)
        cloud.finish(script("pwd", image="europe-docker.pkg.dev/acme/app:v1"))

        assert cloud.output() == [str(tmp_path)]


def test_image_without_command_runs_manage_py(tmp_path):
    """An image without a command runs the manage.py in its directory."""
    (tmp_path / "manage.py").write_text("import sys; print(sys.argv[1:])")
    declared = job(image="app")
    declared.template.template.containers[0].args = ["refresh", "--partner=7"]
    with Emulator(images={"app": tmp_path}) as emulator:
        cloud = Cloud(emulator)
        cloud.finish(declared)

        assert cloud.output() == ["['refresh', '--partner=7']"]


@pytest.mark.parametrize(
    ("image", "command", "args", "argv"),
    [
        ("bare", [], ["/bin/echo", "x"], ["/bin/echo", "x"]),
        ("bare:1", [], ["/bin/echo", "x"], ["/bin/echo", "x"]),
        ("bare@sha256:0", [], ["/bin/echo", "x"], ["/bin/echo", "x"]),
        ("bare", ["/bin/sh"], ["-c", "x"], ["/bin/sh", "-c", "x"]),
        ("bare", [], [], []),
        ("app", [], ["work"], [PYTHON, "manage.py", "work"]),
        ("app", ["/bin/sh"], ["work"], ["/bin/sh", "work"]),
        ("other", [], ["work"], [PYTHON, "manage.py", "work"]),
    ],
)
def test_image_without_an_entry_point_runs_its_arguments(tmp_path, image, command, args, argv):
    """The arguments of an image without an entry point are the whole command."""
    (tmp_path / "manage.py").write_text("")
    images = {"bare": str(tmp_path), "app": str(tmp_path)}
    config = Config(images=images, no_entrypoint=("bare",), directory=str(tmp_path))
    container = run_v2.Container(image=image, command=command, args=args)
    execution = run_v2.Execution(template={"containers": [container]})

    assert Container.of(execution, config, {}).argv == argv


def test_image_without_any_command_fails(tmp_path):
    """A task without an entry point, a command and arguments fails, and the next one runs."""
    with Emulator(images={"bare": tmp_path}, no_entrypoint=["bare"]) as emulator:
        cloud = Cloud(emulator)
        failed = cloud.finish(job(image="bare"))
        logged = [entry.text_payload for entry in emulator.logs.all()]

        assert "exit code: 127" in condition(failed).message
        assert "Application failed to start: no command specified" in logged
        assert cloud.finish(script("exit 0"), "other").succeeded_count == 1


def test_secret_is_in_the_environment(tmp_path):
    """A variable that refers to a secret holds the secret's value."""
    declared = script("echo $TOKEN")
    source = run_v2.EnvVarSource(secret_key_ref=run_v2.SecretKeySelector(secret="token", version="latest"))
    declared.template.template.containers[0].env = [run_v2.EnvVar(name="TOKEN", value_source=source)]
    with Emulator(secrets={"token": "s3cret"}) as emulator:
        cloud = Cloud(emulator)
        cloud.finish(declared)

        assert cloud.output() == ["s3cret"]


def test_secret_falls_back_to_emulator_environment(cloud, monkeypatch):
    """A secret without a configured value is looked up in the emulator's environment."""
    monkeypatch.setenv("CLOUDRUN_EMULATOR_SECRET_DB_PASSWORD", "s3cret")
    declared = script("echo $PASSWORD")
    key = run_v2.SecretKeySelector(secret="projects/acme/secrets/db-password", version="3")
    source = run_v2.EnvVarSource(secret_key_ref=key)
    declared.template.template.containers[0].env = [run_v2.EnvVar(name="PASSWORD", value_source=source)]
    cloud.finish(declared)

    assert cloud.output() == ["s3cret"]


def test_pass_env_passes_variables(monkeypatch):
    """`pass_env` passes variables of the emulator's environment to tasks."""
    monkeypatch.setenv("DATABASE_URL", "postgres://")
    with Emulator(pass_env=("DATABASE_URL", "NOT_SET")) as emulator:
        cloud = Cloud(emulator)
        cloud.finish(script('echo "$DATABASE_URL ${NOT_SET-unset}"'))

        assert cloud.output() == ["postgres:// unset"]


def test_json_line_becomes_structured_entry(cloud):
    """A line with a JSON object becomes a structured entry with the object's severity."""
    line = json.dumps({"severity": "WARNING", "message": "look", "rows": 3})
    execution = cloud.finish(script(f"echo '{line}'"))

    [entry] = [found for found in cloud.emulator.logs.all() if found.HasField("json_payload")]
    assert dict(entry.json_payload) == {"message": "look", "rows": 3.0}
    assert entry.severity == 400
    assert entry.resource.type == "cloud_run_job"
    assert dict(entry.resource.labels) == {
        "project_id": "acme",
        "location": "europe-west4",
        "job_name": "work",
    }
    assert entry.labels["run.googleapis.com/execution_name"] == execution.name.rpartition("/")[2]
    assert entry.labels["run.googleapis.com/task_index"] == "0"


LIFTED = {
    "severity": "notice",
    "logging.googleapis.com/labels": {"job": "work", "task": 0},
    "logging.googleapis.com/trace": "projects/acme/traces/0a",
    "logging.googleapis.com/spanId": "0b",
    "logging.googleapis.com/trace_sampled": True,
    "logging.googleapis.com/sourceLocation": {"file": "a.py", "line": "7", "function": "run"},
    "logging.googleapis.com/operation": {"id": "x", "first": True},
    "logging.googleapis.com/insertId": "i1",
    "httpRequest": {"requestMethod": "GET", "status": 200},
    "time": "2026-01-02T03:04:05Z",
}


def test_special_fields_are_lifted(cloud):
    """Special fields become fields of the entry; a message alone becomes its text."""
    cloud.finish(script(f"echo '{json.dumps({**LIFTED, 'message': 'look'})}'"))

    [entry] = [found for found in cloud.emulator.logs.all() if found.text_payload == "look"]
    assert entry.severity == 300
    assert (entry.labels["job"], entry.labels["task"]) == ("work", "0")
    assert (entry.trace, entry.span_id, entry.trace_sampled) == ("projects/acme/traces/0a", "0b", True)
    assert (entry.source_location.file, entry.source_location.line, entry.insert_id) == ("a.py", 7, "i1")
    assert (entry.operation.id, entry.http_request.status) == ("x", 200)
    assert entry.timestamp.ToJsonString() == "2026-01-02T03:04:05Z"


def test_fields_that_do_not_fit_stay_in_the_payload(cloud):
    """A special field of the wrong type stays in the payload."""
    given = {
        "message": "look",
        "time": 3.5,
        "httpRequest": "GET",
        "logging.googleapis.com/sourceLocation": {"a": 1},
    }
    cloud.finish(script(f"echo '{json.dumps(given)}'"))

    [entry] = [found for found in cloud.emulator.logs.all() if found.HasField("json_payload")]
    assert json_format.MessageToDict(entry.json_payload) == given


@pytest.fixture
def blocked(cloud, monkeypatch):
    """Block the start of containers until this event is set."""
    event = threading.Event()
    start = ExecutionLifecycle._start_unless_cancelled
    monkeypatch.setattr(
        ExecutionLifecycle, "_start_unless_cancelled", lambda lifecycle: event.wait(30) and start(lifecycle)
    )
    yield event
    event.set()


def test_run_job_responds_before_the_container_starts(cloud, blocked):
    """RunJob's response does not wait for the start of the container, which follows it."""
    execution = cloud.start(script("exit 0")).metadata

    assert cloud.execution(execution.name).running_count == 0
    assert condition(execution).state == run_v2.Condition.State.CONDITION_PENDING

    blocked.set()
    assert cloud.outcome(execution.name).succeeded_count == 1


@pytest.mark.parametrize("method", ["cancel_execution", "delete_execution"])
def test_execution_that_ends_before_its_start_starts_nothing(cloud, blocked, method):
    """An execution that is cancelled or deleted between RunJob's response and its start starts no container."""
    execution = cloud.start(script("echo ran")).metadata
    getattr(cloud.emulator.clients.executions, method)(name=execution.name)

    blocked.set()
    assert cloud.finish(script("echo other"), "other").succeeded_count == 1
    assert cloud.output() == ["other"]


def test_frozen_clock_starts_containers(cloud):
    """Containers start although the clock is frozen."""
    cloud.emulator.clock.freeze()

    assert cloud.finish(script("exit 0")).succeeded_count == 1
