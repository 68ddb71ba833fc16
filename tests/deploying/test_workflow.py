"""workflow.yaml: its calls are replayed against the emulator's v1 API."""

from __future__ import annotations

import json
from urllib.request import Request, urlopen

import pytest
import yaml

from cloudrun_jobs.emulator import Emulator
from tests.deploying.steps import FOLDER
from tests.deploying.workflow import CallFailed, Value, Workflow
from tests.emulator.cloud import PLACE, Cloud, script
from tests.emulator.gcloud_cli import PROJECT, REGION

ENVIRONMENT = {
    "GOOGLE_CLOUD_PROJECT_ID": PROJECT,
    "GOOGLE_CLOUD_LOCATION": REGION,
    "GOOGLE_CLOUD_WORKFLOW_EXECUTION_ID": "execution-1",
}
COLLECT, INGEST = "collect-rates-staging", "run-daily-ingest-staging"


@pytest.fixture
def cloud():
    with Emulator(grace=1.0) as emulator:
        yield Cloud(emulator)


@pytest.fixture
def logged():
    """The entries that the workflow wrote."""
    return []


@pytest.fixture
def workflow(cloud, logged):
    def call(name, args):
        if name == "sys.log":
            return logged.append(args)
        assert name == "googleapis.run.v1.namespaces.jobs.run"
        url = f"{cloud.emulator.http}/apis/run.googleapis.com/v1/{args['name']}:run"
        body, host = json.dumps(args.get("body", {})).encode(), f"{args['location']}-run.googleapis.com"
        with urlopen(Request(url, body, {"Host": host})) as response:
            started = json.load(response)["metadata"]["name"]
        short = args["name"].rpartition("/")[2]
        # The connector waits, and raises an error for an execution that failed.
        outcome = cloud.outcome(f"{PLACE}/jobs/{short}/executions/{started}")
        if outcome.succeeded_count != outcome.task_count:
            raise CallFailed({"message": outcome.conditions[0].message})
        return Value({"metadata": Value({"name": started})})

    return Workflow(call, ENVIRONMENT)


def source():
    return yaml.safe_load((FOLDER / "workflow.yaml").read_text())


def test_jobs_run_after_each_other_with_their_overrides(workflow, cloud):
    """The first job gets the arguments and variables of this execution; the second runs after it has ended."""
    first = script('echo "first $PIPELINE_EXECUTION"', env={"PIPELINE_EXECUTION": "none"})
    cloud.create(first, COLLECT)
    cloud.create(script("echo second"), INGEST)
    returned = workflow.run(source(), {"environment": "staging", "since": "2026-02-03"})
    [execution] = cloud.emulator.clients.executions.list_executions(parent=f"{PLACE}/jobs/{COLLECT}")

    assert list(execution.template.containers[0].args) == ["collect_rates", "--since=2026-02-03"]
    assert cloud.output() == ["first execution-1", "second"]
    assert [name.rpartition("-")[0] for name in returned] == [COLLECT, INGEST]


def test_failed_job_ends_the_pipeline(workflow, cloud, logged):
    """If the first job fails, the error is logged and raised, and the second does not run."""
    cloud.create(script("exit 3"), COLLECT)
    cloud.create(script("echo second"), INGEST)
    with pytest.raises(CallFailed):
        workflow.run(source(), {"environment": "staging"})

    assert (logged[0]["severity"], "collect_rates failed" in logged[0]["text"]) == ("ERROR", True)
    assert cloud.output() == []


def test_every_job_may_run_for_hours():
    """The connector does not give up after its 30 minutes: each call has a timeout."""
    text = (FOLDER / "workflow.yaml").read_text()

    assert text.count("call: googleapis.run") == text.count("timeout: 7200") == 2


def test_defaults(workflow, cloud):
    """Without arguments, the pipeline runs in production."""
    cloud.create(script("exit 0"), COLLECT.replace("staging", "production"))
    cloud.create(script("exit 0"), INGEST.replace("staging", "production"))

    assert len(workflow.run(source(), {})) == 2
