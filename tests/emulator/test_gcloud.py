"""Behaviour that only the real gcloud exercises."""

from __future__ import annotations

import pytest

from tests.emulator.cloud import PLACE, eventually, job_of, script
from tests.emulator.gcloud_cli import NEEDS_GCLOUD, REGION, Gcloud

pytestmark = NEEDS_GCLOUD
AT = f"--location={REGION}"


@pytest.fixture
def gcloud(emulator, tmp_path):
    return Gcloud(emulator.http, tmp_path)


def test_execute_waits_for_success(gcloud, cloud):
    """``execute --wait`` waits for an execution and returns it."""
    cloud.create(script("exit 0"))
    execution = gcloud("run", "jobs", "execute", "work", "--wait")

    assert execution["metadata"]["name"].startswith("work-")


def test_execute_reports_failure(gcloud, cloud):
    """``execute --wait`` reports a failed execution."""
    cloud.create(script("exit 3"))

    assert "The execution failed" in gcloud("run", "jobs", "execute", "work", "--wait", succeeds=False)


def test_update_writes_the_whole_job(gcloud, cloud):
    """gcloud reads a job, changes it and writes the whole job back."""
    cloud.create(script("exit 0", env={"A": "1"}))
    gcloud("run", "jobs", "update", "work", "--update-env-vars=B=2", "--tasks=3", "--task-timeout=5m")
    job = cloud.emulator.clients.jobs.get_job(name=f"{PLACE}/jobs/work")

    container = job.template.template.containers[0]
    assert {variable.name: variable.value for variable in container.env} == {"A": "1", "B": "2"}
    assert job.template.task_count == 3
    assert job.template.template.timeout.total_seconds() == 300


def test_executions_are_listed_and_deleted(gcloud, cloud):
    """gcloud lists the executions of a job and deletes one."""
    execution = cloud.finish(script("exit 0"))
    [listed] = gcloud("run", "jobs", "executions", "list", "--job=work")
    gcloud("run", "jobs", "executions", "delete", listed["metadata"]["name"])

    assert execution.name.endswith(listed["metadata"]["name"])
    assert list(cloud.emulator.clients.executions.list_executions(parent=job_of(execution))) == []


def test_scheduler_job_is_created_updated_and_run(gcloud, cloud):
    """gcloud creates a scheduler job for a Cloud Run job, updates only its schedule, and runs it."""
    cloud.create(script("echo up"))
    uri = f"--uri=https://run.googleapis.com/v2/{PLACE}/jobs/work:run"
    account = "--oauth-service-account-email=jobs@acme.iam.gserviceaccount.com"
    options = ("--schedule=0 * * * *", "--time-zone=Asia/Tokyo", "--max-retry-attempts=2", uri, account)
    gcloud("scheduler", "jobs", "create", "http", "tick", AT, *options)
    gcloud("scheduler", "jobs", "update", "http", "tick", AT, "--schedule=30 * * * *")
    gcloud("scheduler", "jobs", "run", "tick", AT)
    [job] = gcloud("scheduler", "jobs", "list", AT)

    assert (job["schedule"], job["timeZone"], job["state"]) == ("30 * * * *", "Asia/Tokyo", "ENABLED")
    assert job["retryConfig"]["retryCount"] == 2
    assert eventually(cloud.output) == ["up"]


def test_logs_are_read_with_a_filter(gcloud, cloud):
    """gcloud reads the output of a job with a filter."""
    cloud.finish(script("echo one; echo two >&2"))
    log_filter = "resource.type=cloud_run_job AND resource.labels.job_name=work AND logName:stderr"
    [entry] = gcloud("logging", "read", log_filter)

    assert entry["textPayload"] == "two"


def test_secrets(gcloud, tmp_path):
    """gcloud creates a secret, adds versions, and reads, disables and lists them."""
    value = tmp_path / "value"
    value.write_text("one")
    gcloud("secrets", "create", "token", "--replication-policy=automatic", f"--data-file={value}")
    value.write_text("two")
    gcloud("secrets", "versions", "add", "token", f"--data-file={value}")
    found = gcloud("secrets", "versions", "access", "latest", "--secret=token")
    gcloud("secrets", "versions", "disable", "1", "--secret=token")
    listed = gcloud("secrets", "versions", "list", "token")

    assert found["payload"]["data"] == "dHdv"
    states = {each["name"].rpartition("/")[2]: each["state"] for each in listed}
    assert states == {"2": "ENABLED", "1": "DISABLED"}
