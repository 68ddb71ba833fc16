"""Fields of the REST APIs that the installed clients lack: they are read, kept and written."""

from __future__ import annotations

import pytest
from google.cloud import run_v2, scheduler_v1
from google.protobuf import json_format

from cloudrun_jobs.emulator import messages
from tests.emulator.cloud import PLACE
from tests.emulator.rest import Rest

SANDBOXES = {"templates": [{"name": "box", "image": "app", "env": [{"name": "A", "value": "b"}]}]}
TASK = {
    "containers": [
        {
            "image": "app",
            "command": ["/bin/true"],
            "sandboxLauncher": True,
            "buildConfig": {"buildpacksBuild": {"environmentVariables": {"A": "b"}}, "tags": ["x"]},
        }
    ],
    "volumes": [{"name": "files", "filestore": {"volume": "v"}}, {"name": "disk", "emptyDir": {"medium": "DISK"}}],
    "maxRetries": 0,
    "sandboxes": SANDBOXES,
    "workloadIdentityConfig": {"identity": "spiffe://x", "identityType": "IDENTITY_TYPE_AGENT_IDENTITY"},
}
JOB = {
    "functionalType": "FUNCTIONAL_TYPE_AGENT",
    "template": {"client": "web", "clientVersion": "7", "delayExecution": True, "template": TASK},
}
SERVICE = {
    "sshEnabled": True,
    "template": {
        "containers": TASK["containers"],
        "ambientNetworking": {"enabled": True, "ambientScope": "AMBIENT_SCOPE_GLOBAL"},
        "scaling": {"cpuUtilization": 0.0},
        "sandboxes": SANDBOXES,
    },
}


def _covers(whole, part):
    """Return True if a JSON value contains another one."""
    if isinstance(part, dict):
        return all(key in whole and _covers(whole[key], value) for key, value in part.items())
    if isinstance(part, list):
        return len(whole) == len(part) and all(map(_covers, whole, part))
    return whole == part


@pytest.mark.parametrize(
    ("message_class", "content"), [(run_v2.Job, JOB), (run_v2.Service, SERVICE), (run_v2.TaskTemplate, TASK)]
)
def test_added_fields_survive_the_client(message_class, content):
    """A message of the client keeps the added fields through a copy and its serialised form."""
    extended = json_format.ParseDict(content, messages.extended_class(message_class)())
    client = message_class(messages.reduce(extended, message_class))
    stored = message_class.deserialize(message_class.serialize(client))

    assert messages.to_json(stored) == content


def test_client_without_added_fields_is_unchanged():
    """A class of a package without added fields is the client's own."""
    assert messages.extended_class(scheduler_v1.Job) is scheduler_v1.Job.pb()


def test_added_fields_are_kept_over_rest(emulator):
    """Over REST, a job keeps the added fields, and its execution and tasks have those of the template."""
    rest = Rest(emulator)
    operation = rest("POST", f"v2/{PLACE}/jobs?jobId=work", **JOB)
    execution = rest("POST", f"v2/{PLACE}/jobs/work:run")["metadata"]
    task = rest("GET", f"v2/{execution['name']}/tasks")["tasks"][0]

    assert _covers(operation["response"], JOB)
    assert _covers(rest("GET", f"v2/{PLACE}/jobs/work"), JOB)
    assert _covers(execution, {"client": "web", "clientVersion": "7", "template": {"sandboxes": SANDBOXES}})
    assert _covers(task, {"sandboxes": SANDBOXES, "workloadIdentityConfig": TASK["workloadIdentityConfig"]})


def test_added_fields_of_a_service_are_kept_over_rest(emulator):
    """Over REST, a service keeps the added fields, and its revision has those of the template."""
    rest = Rest(emulator)
    rest("POST", f"v2/{PLACE}/services?serviceId=web", **SERVICE)
    revision = rest("GET", f"v2/{PLACE}/services/web/revisions")["revisions"][0]

    assert _covers(rest("GET", f"v2/{PLACE}/services/web"), SERVICE)
    assert _covers(revision, SERVICE["template"])


def test_unknown_field_beside_added_ones_is_refused(emulator):
    """A field that the API lacks is refused in an added message too."""
    error = Rest(emulator).error(
        "POST", f"v2/{PLACE}/jobs?jobId=work", template={"template": {"sandboxes": {"x": 1}}}
    )

    assert error["status"] == "INVALID_ARGUMENT"
