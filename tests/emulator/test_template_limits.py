"""Templates that Cloud Run rejects: labels, CPU and memory, GPUs, mounts, names, ports, dependencies."""

from __future__ import annotations

import pytest
from google.cloud import run_v2

from cloudrun_jobs.emulator import Emulator, limits, messages
from cloudrun_jobs.emulator.engine.jobs import with_defaults
from cloudrun_jobs.emulator.errors import ServiceError
from tests.emulator.cloud import PLACE
from tests.emulator.rest import Rest

GPU = {"nvidia.com/gpu": "1"}
L4 = {"accelerator": "nvidia-l4"}
VOLUMES = [
    {"name": "disk", "emptyDir": {}},
    {"name": "key", "secret": {"secret": "key"}},
    {"name": "sql", "cloudSqlInstance": {"instances": ["p:r:i"]}},
]


def job(container=None, task=None, execution=None, **fields):
    """Return a job with defaults and changed fields of its container, task and execution template."""
    first = {"image": "app", **(container or {})}
    template = {"template": {"containers": [first], "volumes": VOLUMES, **(task or {})}, **(execution or {})}
    content = {"template": template, **fields}
    return with_defaults(messages.from_json(run_v2.Job, content), f"{PLACE}/jobs/work")


def size(cpu, memory, **more):
    return {"resources": {"limits": {"cpu": cpu, "memory": memory, **more}}}


def mount(name, path, **more):
    return {"volumeMounts": [{"name": name, "mountPath": path, **more}]}


def containers(*changes):
    return {"containers": [{"image": "app", **change} for change in changes]}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"labels": {"run.googleapis.com/x": "y"}}, "reserved for the system"),
        ({"labels": {"cloud.googleapis.com/location": "y"}}, "reserved for the system"),
        ({"annotations": {"serving.knative.dev/creator": "y"}}, "reserved for the system"),
        ({"execution": {"annotations": {"autoscaling.knative.dev/maxScale": "1"}}}, "Job.template.annotations"),
        ({"execution": {"labels": {"client.run.googleapis.com/x": "y"}}}, "Job.template.labels"),
        ({"labels": {"Team": "a"}}, "at most 63 lowercase letters"),
        ({"labels": {"team": "A"}}, "at most 63 lowercase letters"),
        ({"labels": {"teAm": "a"}}, "at most 63 lowercase letters"),
        ({"labels": {"1team": "a"}}, "its key must begin with a letter"),
        ({"labels": {"t" * 64: "a"}}, "at most 63 lowercase letters"),
        ({"labels": {f"l{number}": "" for number in range(65)}}, "got 65 labels"),
        ({"container": size("4", "1Gi")}, "For 4.0 CPU, memory must be between 2Gi and 16Gi inclusive."),
        ({"container": size("1000m", "8Gi")}, "For 1.0 CPU, memory must be between 512Mi and 4Gi inclusive."),
        ({"container": size("1", "64Mi")}, "For 1.0 CPU, memory must be between 512Mi and 4Gi inclusive."),
        ({"container": size("0.4", "1Gi")}, "For 0.4 CPU, memory must be between 128Mi and 512Mi inclusive."),
        ({"container": size("3", "4Gi")}, "3 CPU is not supported"),
        ({"container": size("1500m", "2Gi")}, "1.5 CPU is not supported"),
        ({"container": size("10m", "128Mi")}, "0.01 CPU is not supported"),
        ({"container": size("two", "4Gi")}, "'two' is not a quantity"),
        ({"container": size("1", "lots")}, "'lots' is not a quantity"),
        ({"container": size("1", "512Mi", disk="1Gi")}, "Invalid resource 'disk'"),
        ({"container": size("4", "16Gi", **GPU)}, "requires node_selector.accelerator"),
        ({"container": size("2", "16Gi", **GPU), "task": {"nodeSelector": L4}}, "at least 4 CPU and 16Gi"),
        ({"container": size("8", "8Gi", **GPU), "task": {"nodeSelector": L4}}, "at least 4 CPU and 16Gi"),
        ({"container": size("8", "32Gi", **{"nvidia.com/gpu": "2"})}, "got '2', expected '1'"),
        (
            {"container": {"resources": {"limits": GPU}}, "task": {"nodeSelector": L4, "timeout": "43201s"}},
            "between 1s and 43200s for tasks with a GPU",
        ),
        (
            {"execution": {"delayExecution": True}, "task": {"timeout": "43201s"}},
            "between 1s and 43200s for delayed executions",
        ),
        ({"container": mount("none", "/x")}, "'none' is not the name of a volume"),
        ({"container": mount("disk", "x")}, "expected an absolute path"),
        ({"container": mount("disk", "")}, "expected an absolute path"),
        ({"container": mount("disk", "/a:b")}, "expected an absolute path"),
        ({"container": mount("sql", "/sql")}, "expected /cloudsql"),
        ({"container": mount("key", "/key", subPath="x")}, "not supported for a volume of a secret"),
        ({"container": {"volumeMounts": 2 * mount("disk", "/x")["volumeMounts"]}}, "used more than once"),
        ({"task": {"volumes": [VOLUMES[0], VOLUMES[0]]}}, "'disk' is used more than once"),
        ({"task": containers({"name": "a"}, {"name": "a"})}, "'a' is used more than once"),
        ({"task": containers({"name": "A"})}, "'A' is not a DNS label"),
        ({"task": containers({"name": "a", "dependsOn": ["b"]})}, "'b' is not the name of another container"),
        ({"task": containers({"name": "a", "dependsOn": ["a"]})}, "'a' is not the name of another container"),
        ({"container": {"env": [{"name": "A"}, {"name": "A"}]}}, "'A' is used more than once"),
        (
            {"container": {"env": [{"name": "A", "valueSource": {"secretKeyRef": {}}}]}},
            "secret of 'A' is required",
        ),
        ({"container": {"ports": [{"containerPort": 1}, {"containerPort": 2}]}}, "at most one port"),
        ({"container": {"ports": [{"containerPort": 65536}]}}, "between 1 and 65535"),
    ],
)
def test_template_beyond_a_rule_is_rejected(wrong, message):
    """A template that the service would reject is refused; the message names the field."""
    with pytest.raises(ServiceError) as error:
        limits.check_job(job(**wrong))

    assert error.value.code == "INVALID_ARGUMENT"
    assert message in error.value.message


@pytest.mark.parametrize(
    "right",
    [
        {"labels": {"team-a_1": "", "größe": "x"}, "annotations": {"example.com/Note": "Any text"}},
        {"execution": {"labels": {"client.knative.dev/nonce": "x"}}},
        {"container": size("80m", "128Mi")},
        {"container": size("0.5", "1Gi")},
        {"container": size("8000m", "32Gi")},
        {"container": size("6", "5G")},
        {"container": {"resources": {"limits": GPU}}, "task": {"nodeSelector": L4, "timeout": "43200s"}},
        {"container": mount("disk", "/x", subPath="y")},
        {"container": mount("sql", "")},
        {"task": containers({"name": "a"}, {"name": "b", "dependsOn": ["a"]}, {"name": "c"})},
        {"task": {"timeout": "604800s"}},
    ],
)
def test_template_within_the_rules_is_accepted(right):
    """A template at the edge of the rules is accepted."""
    limits.check_job(job(**right))


def test_rules_hold_for_each_resource_over_rest():
    """Jobs, services, worker pools, updates and overrides are checked; the region ``-`` is only for lists."""
    spec = {"containers": [{"image": "app"}]}
    wrong = {"containers": [{"image": "app", **mount("none", "/x")}]}
    with Emulator(grace=1.0) as emulator:
        rest = Rest(emulator)
        gpu = {"image": "app", "resources": {"limits": GPU}}
        task = {"containers": [gpu], "nodeSelector": L4}
        rest("POST", f"v2/{PLACE}/jobs?jobId=work", template={"template": task})
        rest("POST", f"v2/{PLACE}/services?serviceId=web", template=spec)
        override = rest.error("POST", f"v2/{PLACE}/jobs/work:run", overrides={"timeout": "90000s"})
        refused = [
            rest.error("POST", f"v2/{PLACE}/services?serviceId=other", template=wrong),
            rest.error("PATCH", f"v2/{PLACE}/services/web", template=wrong),
            rest.error("POST", f"v2/{PLACE}/workerPools?workerPoolId=pool", template=wrong),
            rest.error("PATCH", f"v2/{PLACE}/jobs/work", template={"template": wrong}),
        ]
        nowhere = "v2/projects/acme/locations/-/jobs"
        unplaced = [
            rest.error("POST", f"{nowhere}?jobId=work", template={"template": spec}),
            rest.error("GET", f"{nowhere}/work"),
            rest.error("POST", f"{nowhere}/work:run"),
            rest.error("DELETE", f"{nowhere}/work"),
        ]

        assert "for tasks with a GPU" in override["message"]
        assert ["'none' is not the name of a volume" in error["message"] for error in refused] == [True] * 4
        assert [error["status"] for error in unplaced] == ["UNIMPLEMENTED"] * 4
        assert len(rest("GET", nowhere)["jobs"]) == 1
