"""The fields that the service fills: which, when, and with what, over REST."""

from __future__ import annotations

import re

import pytest

from cloudrun_jobs.emulator import Emulator
from tests.emulator.cloud import PLACE, eventually
from tests.emulator.rest import Rest

TASK = {
    "containers": [{"image": "app", "command": ["/bin/true"]}],
    "maxRetries": 0,
    "nodeSelector": {"accelerator": "nvidia-l4"},
    "encryptionKey": "key",
}
UUID, TIME, ETAG, CALLER = r"[0-9a-f-]{36}", r"20\d\d-.*Z", r'".+"', "caller@acme.iam.gserviceaccount.com"
GIVEN = {"uid": "mine", "generation": "7", "creator": "me", "executionCount": 9, "conditions": [{"type": "X"}]}
READY = {"type": "Ready", "state": "CONDITION_SUCCEEDED"}
AVAILABLE = {"type": "ResourcesAvailable", "state": "CONDITION_SUCCEEDED"}
COMMON = {"uid": UUID, "createTime": TIME, "updateTime": TIME, "creator": CALLER, "etag": ETAG, "generation": "1"}
OBSERVED = {**COMMON, "observedGeneration": "1", "launchStage": "GA"}


@pytest.fixture(scope="module")
def resources():
    """The JSON of each resource by a name that says when it was read."""
    with Emulator(grace=1.0, max_parallelism=3) as emulator:
        rest = Rest(emulator)
        template = {"taskCount": 2, "template": TASK}
        rest("POST", f"v2/{PLACE}/jobs?jobId=new", template=template, **GIVEN)
        rest("POST", f"v2/{PLACE}/jobs?jobId=ran", template=template)
        rest("POST", f"v2/{PLACE}/jobs?jobId=wide", template={**template, "taskCount": 5})
        started = rest("POST", f"v2/{PLACE}/jobs/ran:run")["metadata"]
        wide = rest("POST", f"v2/{PLACE}/jobs/wide:run", overrides={"taskCount": 4})["metadata"]
        narrow = rest("POST", f"v2/{PLACE}/jobs/wide:run", overrides={"taskCount": 1})["metadata"]
        eventually(lambda: "completionTime" in rest("GET", f"v2/{started['name']}"))
        spec = {"containers": [{"image": "app"}], "sessionAffinity": True, "serviceMesh": {"mesh": "m"}}
        rest("POST", f"v2/{PLACE}/services?serviceId=web", template=spec, uri="mine", uid="mine")
        pool = {"containers": [{"image": "app"}]}
        rest("POST", f"v2/{PLACE}/workerPools?workerPoolId=pool", template=pool, uid="mine", creator="me")
        yield {
            "new job": rest("GET", f"v2/{PLACE}/jobs/new"),
            "job that ran": rest("GET", f"v2/{PLACE}/jobs/ran"),
            "started execution": started,
            "wide execution": wide,
            "narrow execution": narrow,
            "finished execution": rest("GET", f"v2/{started['name']}"),
            "task": rest("GET", f"v2/{started['name']}/tasks")["tasks"][0],
            "service": rest("GET", f"v2/{PLACE}/services/web"),
            "revision": rest("GET", f"v2/{PLACE}/services/web/revisions")["revisions"][0],
            "worker pool": rest("GET", f"v2/{PLACE}/workerPools/pool"),
        }


@pytest.mark.parametrize(
    ("when", "expected"),
    [
        ("new job", {**OBSERVED, "lastModifier": CALLER, "latestCreatedExecution": {}}),
        ("new job", {"terminalCondition": READY, "conditions": [AVAILABLE], "executionCount": None}),
        ("new job", {"reconciling": None, "deleteTime": None, "expireTime": None}),
        ("job that ran", {"executionCount": 1}),
        (
            "job that ran",
            {
                "latestCreatedExecution": {
                    "name": "ran-.{5}",
                    "createTime": TIME,
                    "completionStatus": "EXECUTION_SUCCEEDED",
                }
            },
        ),
        (
            "started execution",
            {**OBSERVED, "parallelism": 2, "taskCount": 2, "reconciling": True, "logUri": "http.*"},
        ),
        ("started execution", {"job": "ran", "completionTime": None, "template": {"maxRetries": 0}}),
        ("wide execution", {"parallelism": 3, "taskCount": 4}),
        ("narrow execution", {"parallelism": 1, "taskCount": 1}),
        (
            "finished execution",
            {"succeededCount": 2, "startTime": TIME, "completionTime": TIME, "reconciling": None},
        ),
        ("task", {"uid": UUID, "etag": ETAG, "createTime": TIME, "updateTime": TIME, "scheduledTime": TIME}),
        (
            "task",
            {"job": "ran", "execution": "ran-.{5}", "nodeSelector": TASK["nodeSelector"], "encryptionKey": "key"},
        ),
        ("service", {**OBSERVED, "lastModifier": CALLER, "terminalCondition": READY, "uri": "https://web-acme.*"}),
        ("revision", {**OBSERVED, "service": "web", "sessionAffinity": True, "serviceMesh": {"mesh": "m"}}),
        ("worker pool", {**OBSERVED, "lastModifier": CALLER, "terminalCondition": READY}),
    ],
)
def test_service_fills_output_only_fields(resources, when, expected):
    """Each field has the value of the service, whatever the caller sent; None: the field is absent."""
    assert {name: _shown(resources[when].get(name), value) for name, value in expected.items()} == expected


def _shown(found, expected):
    """Return the expected value if the found one has its fields, and matches it where it is a text."""
    if isinstance(expected, dict) and expected and isinstance(found, dict):
        return {name: _shown(found.get(name), value) for name, value in expected.items()}
    if isinstance(expected, list) and isinstance(found, list) and len(found) == len(expected):
        return [_shown(*pair) for pair in zip(found, expected, strict=True)]
    matches = isinstance(expected, str) and isinstance(found, str) and re.fullmatch(expected, found)
    return expected if matches else found
