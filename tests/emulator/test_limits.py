"""Requests that Cloud Run rejects, and the error messages."""

from __future__ import annotations

import pytest
from google.api_core import exceptions
from google.cloud import run_v2

from tests.emulator.cloud import PLACE, script


def changed(**fields):
    """Return a job with changed fields of its container (c_), task (t_) or execution template (e_)."""
    declared = script("exit 0")
    for path, value in fields.items():
        target = {"c": declared.template.template.containers[0], "t": declared.template.template}
        kind, _, name = path.partition("_")
        setattr(target.get(kind, declared.template), name, value)
    return declared


def variables(**values):
    return [run_v2.EnvVar(name=name, value=value) for name, value in values.items()]


@pytest.mark.parametrize("job_id", ["", "Job", "1job", "job-", "job_a", "j" * 64, "jöb"])
def test_invalid_job_id_is_rejected(cloud, job_id):
    """A job id is lower case, starts with a letter, does not end with a hyphen and has at most 63 characters."""
    with pytest.raises(exceptions.InvalidArgument, match="job_id"):
        cloud.create(script("exit 0"), job_id)


@pytest.mark.parametrize("job_id", ["a", "a-1", "j" * 63])
def test_valid_job_id_is_accepted(cloud, job_id):
    """The longest and the shortest job ids are accepted."""
    assert cloud.create(script("exit 0"), job_id).name == f"{PLACE}/jobs/{job_id}"


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"e_task_count": 10_001}, "task_count: got 10001, expected between 1 and 10000"),
        ({"e_parallelism": 2}, "parallelism: got 2"),
        ({"t_timeout": "604801s"}, "timeout: got 604801s"),
        ({"t_max_retries": 11}, "max_retries: got 11, expected between 0 and 10"),
        ({"t_containers": []}, "at least one container"),
        ({"c_image": ""}, "an image is required"),
        ({"c_args": ["x"] * 1001}, "args: got 1001 arguments, expected at most 1000"),
        ({"c_env": variables(**{f"V{n}": "" for n in range(1001)})}, "env: got 1001 variables"),
        ({"c_env": variables(PORT="1", K_SERVICE="x")}, "reserved env names were provided: PORT, K_SERVICE"),
        ({"c_env": variables(CLOUD_RUN_JOB="x")}, "automatically set by the system"),
        ({"c_env": variables(A="x" * 32_769)}, "must be at most 32768 bytes each"),
        ({"c_env": variables(A="\0")}, "NUL"),
        ({"c_env": variables(**{"A=B": "x"})}, "not the name of an environment variable"),
    ],
)
def test_job_beyond_a_limit_is_rejected(cloud, wrong, message):
    """A job beyond a limit is rejected; the message names the field and the expected value."""
    with pytest.raises(exceptions.InvalidArgument, match=message):
        cloud.create(changed(**wrong))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"task_count": 10_001}, "task_count"),
        ({"timeout": "604801s"}, "timeout"),
        ({"container_overrides": [{"args": ["x"] * 1001}]}, "args"),
        ({"container_overrides": [{"env": [{"name": "CLOUD_RUN_JOB", "value": "x"}]}]}, "reserved"),
        ({"container_overrides": [{"args": ["x"], "clear_args": True}]}, "clear_args"),
    ],
)
def test_overrides_beyond_a_limit_are_rejected(cloud, overrides, message):
    """Overrides have the same limits."""
    with pytest.raises(exceptions.InvalidArgument, match=message):
        cloud.start(script("exit 0"), **overrides)


@pytest.mark.parametrize(
    ("parallelism", "task_count", "refused"),
    [(3, 2, True), (5, 1, True), (3, 3, False), (3, 7, False), (0, 1, False), (1, 1, False)],
)
@pytest.mark.parametrize("validate_only", [False, True])
def test_task_count_below_parallelism_is_rejected(cloud, parallelism, task_count, refused, validate_only):
    """RunJob refuses a task count below the job's parallelism, and starts nothing."""
    name = cloud.create(script("exit 0", task_count=5, parallelism=parallelism)).name
    request = run_v2.RunJobRequest(name=name, overrides={"task_count": task_count}, validate_only=validate_only)
    if refused:
        with pytest.raises(exceptions.InvalidArgument, match=f"parallelism of {parallelism}"):
            cloud.emulator.clients.jobs.run_job(request)
    else:
        cloud.emulator.clients.jobs.run_job(request)

    started = list(cloud.emulator.clients.executions.list_executions(parent=name))
    assert len(started) == int(not refused and not validate_only)


def test_job_defaults_are_set(cloud):
    """Unset fields get defaults: one task, ten minutes, three retries."""
    declared = script("exit 0")
    template = run_v2.TaskTemplate(containers=declared.template.template.containers)
    created = cloud.create(run_v2.Job(template=run_v2.ExecutionTemplate(template=template)))

    assert created.template.task_count == 1
    assert created.template.template.timeout.total_seconds() == 600
    assert created.template.template.max_retries == 3
    assert dict(created.template.template.containers[0].resources.limits) == {"cpu": "1000m", "memory": "512Mi"}


def test_zero_retries_are_kept(cloud):
    """An explicit 0 for retries is kept."""
    assert cloud.create(script("exit 0", retries=0)).template.template.max_retries == 0


def test_job_id_is_unique(cloud):
    """A job id can be used once."""
    cloud.create(script("exit 0"))

    with pytest.raises(exceptions.AlreadyExists) as raised:
        cloud.create(script("exit 0"))

    assert raised.value.message == "Resource 'work' already exists."


def test_missing_job_is_not_found(cloud):
    """The error about a missing job names kind, region and project."""
    with pytest.raises(exceptions.NotFound) as raised:
        cloud.emulator.clients.jobs.run_job(name=f"{PLACE}/jobs/none")

    assert raised.value.message == (
        "Resource 'none' of kind 'JOB' in region 'europe-west4' in project 'acme' does not exist."
    )


def test_malformed_name_is_rejected(cloud):
    """A malformed job name is rejected with INVALID_ARGUMENT."""
    with pytest.raises(exceptions.InvalidArgument, match="Invalid resource name"):
        cloud.emulator.clients.jobs.get_job(name="jobs/none")


def test_update_keeps_service_set_fields(cloud):
    """An update changes the template and the generation, and keeps the identity."""
    created = cloud.create(script("exit 0"))
    updated = cloud.emulator.clients.jobs.update_job(
        job=run_v2.Job(name=created.name, template=script("exit 1").template)
    ).result()

    assert (updated.uid, updated.create_time) == (created.uid, created.create_time)
    assert (created.generation, updated.generation) == (1, 2)
    assert updated.etag != created.etag


def test_update_with_a_stale_etag_is_refused(cloud):
    """An update with the etag of an older version is refused."""
    stale = cloud.create(script("exit 0"))
    jobs = cloud.emulator.clients.jobs
    jobs.update_job(job=stale).result()

    with pytest.raises(exceptions.Aborted, match="Conflict for resource 'work'"):
        jobs.update_job(job=stale)


def test_runs_and_deletions_ignore_etags(cloud):
    """A run and a deletion succeed with the etag of an older version."""
    stale = cloud.create(script("exit 0"))
    jobs = cloud.emulator.clients.jobs
    jobs.update_job(job=stale).result()

    assert jobs.run_job(run_v2.RunJobRequest(name=stale.name, etag=stale.etag)).metadata.name
    assert jobs.delete_job(run_v2.DeleteJobRequest(name=stale.name, etag=stale.etag)).result()


def test_allow_missing_creates_the_job(cloud):
    """An update creates a missing job only with `allow_missing`."""
    job = run_v2.Job(name=f"{PLACE}/jobs/new", template=script("exit 0").template)
    update = cloud.emulator.clients.jobs.update_job

    with pytest.raises(exceptions.NotFound):
        update(job=job)

    created = update(run_v2.UpdateJobRequest(job=job, allow_missing=True)).result()

    assert created.generation == 1


def test_job_policy_is_stored(cloud):
    """A job's policy is stored; without a configured policy, every permission is granted."""
    name = cloud.create(script("exit 0")).name
    jobs = cloud.emulator.clients.jobs
    binding = {"role": "roles/run.invoker", "members": ["user:a@example.com"]}
    jobs.set_iam_policy({"resource": name, "policy": {"bindings": [binding]}})

    assert jobs.get_iam_policy({"resource": name}).bindings[0].role == "roles/run.invoker"
    held = jobs.test_iam_permissions({"resource": name, "permissions": ["run.jobs.run"]})
    assert list(held.permissions) == ["run.jobs.run"]
