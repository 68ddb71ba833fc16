"""v1 and v2 hold the same declaration."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
import requests
from google.cloud import run_v2
from google.protobuf import message_factory
from google.protobuf.descriptor import FieldDescriptor
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cloudrun_jobs.emulator import Emulator, names
from cloudrun_jobs.emulator.errors import ServiceError
from cloudrun_jobs.emulator.frontends.knative import mapping, resources, selectors
from cloudrun_jobs.emulator.frontends.knative.fields import Annotations, Inline, Items, Optional
from cloudrun_jobs.emulator.messages import extend, extended_class

State, Reason = run_v2.Condition.State, run_v2.Condition.ExecutionReason
LOCATION = names.Location("acme", "europe-west4")
NOW = datetime(2026, 3, 1, tzinfo=UTC)
DONE = {"type_": "Completed", "state": State.CONDITION_SUCCEEDED}
FAILED = {"type_": "Completed", "state": State.CONDITION_FAILED}
CANCELLED = {**FAILED, "execution_reason": Reason.CANCELLED}
KINDS = {"Job": mapping.JOB, "Service": mapping.SERVICE, "WorkerPool": mapping.WORKER_POOL}
# A field that neither the client nor the emulator knows, with the number 70001.
UNKNOWN_FIELD = b"\x8a\x97\x22\x03new"
NAMES = ["a", "b", "app", mapping.CLOUD_SQL_VOLUME, "projects/other/secrets/token"]
SCALARS = {
    FieldDescriptor.TYPE_STRING: st.sampled_from(NAMES),
    FieldDescriptor.TYPE_INT32: st.integers(0, 9),
    FieldDescriptor.TYPE_INT64: st.integers(0, 9),
    FieldDescriptor.TYPE_FLOAT: st.sampled_from([0.5, 1.0]),
    FieldDescriptor.TYPE_BOOL: st.booleans(),
    FieldDescriptor.TYPE_BYTES: st.binary(max_size=2),
}


@st.composite
def filled(draw, message_class, *, chance=2):
    """Return a message with a choice of its fields, of every type and at every depth."""
    message = message_class()
    for field in message_class.DESCRIPTOR.fields:
        # The type of a share of traffic is never unspecified.
        if field.name == "type_" or draw(st.integers(1, chance)) == 1:
            _fill(draw, message, field, chance)
    message.MergeFromString(draw(st.sampled_from([b"", UNKNOWN_FIELD])))
    return message


def _fill(draw, message, field, chance):
    if field.message_type and field.message_type.GetOptions().map_entry:
        getattr(message, field.name).update(draw(st.dictionaries(st.sampled_from(NAMES), SCALARS[9], max_size=2)))
    elif field.is_repeated:
        getattr(message, field.name).extend(draw(st.lists(_value(field, chance), max_size=2)))
    elif field.message_type:
        getattr(message, field.name).CopyFrom(draw(_value(field, chance)))
    else:
        setattr(message, field.name, draw(_value(field, chance)))


def _value(field, chance):
    if field.enum_type:
        return st.sampled_from([value.number for value in field.enum_type.values if value.number])
    if field.message_type is None:
        return SCALARS[field.type]
    return filled(message_factory.GetMessageClass(field.message_type), chance=chance)


def overlaid(table, v1, message):
    """Return the message overlaid with the v1 resource, after its way through JSON."""
    checked = resources.check(table, json.loads(json.dumps(v1)), "resource")
    annotations = checked["spec"]["template"]["metadata"].get("annotations", {})
    table.overlay(message, checked, mapping.aliases_of(annotations))
    return message


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_resource_written_back_through_v1_is_unchanged(kind, data):
    """A v2 resource that v1 reads and writes back keeps every field, also those that v1 lacks."""
    resource = data.draw(filled(extended_class(getattr(run_v2, kind))))
    before = resource.SerializeToString(deterministic=True)
    after = overlaid(KINDS[kind], KINDS[kind].render(resource), resource)

    assert after.SerializeToString(deterministic=True) == before


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_v1_resource_is_read_back(kind, data):
    """A v1 resource with any field that v1 has is read back from an empty v2 resource."""
    message_class = extended_class(getattr(run_v2, kind))
    v1 = KINDS[kind].render(data.draw(filled(message_class)))

    assert KINDS[kind].render(overlaid(KINDS[kind], v1, message_class())) == v1


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_resource_replaced_by_an_empty_one_keeps_what_v1_lacks(data):
    """A replacement without any field clears all that v1 has, and only that."""
    job = overlaid(
        mapping.JOB, {"spec": {"template": {"metadata": {}}}}, data.draw(filled(extended_class(run_v2.Job)))
    )
    shown = mapping.JOB.render(job)

    assert shown["spec"]["template"]["spec"] == {"template": {"spec": {}}}


def paths(table, descriptor):
    """Yield the v2 paths of a table's rows with the descriptors that they start from."""
    for row in table.fields:
        if isinstance(row, Annotations):
            yield from ((each.path, descriptor) for each in row.rows if type(each).__name__ in PLAIN)
        elif isinstance(row, Inline | Optional | Items):
            inner = descriptor.fields_by_name[row.path].message_type if row.path else descriptor
            yield from paths(row.kind.of if isinstance(row, Items) else row.kind, inner)
        elif row.path:
            yield row.path, descriptor


PLAIN = ("Field", "Policy", "JsonMessages")


def resolve(path, descriptor):
    for name in path.split("."):
        descriptor = descriptor.fields_by_name[name].message_type or descriptor.fields_by_name[name]
    return descriptor


TABLES = {**KINDS, "Execution": mapping.EXECUTION, "Task": mapping.TASK, "Revision": mapping.REVISION}


@pytest.mark.parametrize("kind", TABLES)
def test_every_row_is_a_field_of_v2(kind):
    """Every path of the table is a field of the message of v2."""
    descriptor = extended_class(getattr(run_v2, kind)).DESCRIPTOR

    assert all(resolve(*row) for row in paths(TABLES[kind], descriptor))


def job_with(task=None, container=None, **spec):
    container = {"image": "app", **(container or {})}
    task = {"containers": [container], **(task or {})}
    return {"spec": {"template": {"spec": {"template": {"spec": task}, **spec}}}}


def with_volume(**source):
    return job_with(task={"volumes": [{"name": "files", **source}]})


def annotated(name, value):
    job = job_with()
    job["spec"]["template"]["metadata"] = {"annotations": {f"run.googleapis.com/{name}": value}}
    return job


BUCKET = {"driver": mapping.GCS_DRIVER}
KEY = {"secretKeyRef": {"name": "s", "key": "1"}}


def read(v1, stored=None):
    """Return the stored v2 job, or an empty one, overlaid with a v1 job."""
    return resources.JOB.read(resources.JOB.check(v1, LOCATION), stored or run_v2.Job())


TASK = "job.spec.template.spec.template.spec"


@pytest.mark.parametrize(
    ("v1", "message"),
    [
        (job_with(task={"maxRetrys": 1}), f"Unknown name \"maxRetrys\" at '{TASK}': Cannot find field."),
        (job_with(taskcountt=1), "Unknown name \"taskcountt\" at 'job.spec.template.spec': Cannot find field."),
        (job_with(container={"img": ""}), f"Unknown name \"img\" at '{TASK}.containers[0]': Cannot find field."),
        ({"sepc": {}}, "Unknown name \"sepc\" at 'job': Cannot find field."),
        ({"spec": 1}, "Invalid value at 'job.spec' (type.googleapis.com/google.cloud.run.v1.JobSpec), 1"),
        ({"spec": [1]}, "Unknown name \"spec\" at 'job': Proto field is not repeating, cannot start list."),
        (
            job_with(taskCount="many"),
            "at 'job.spec.template.spec.task_count' (TYPE_INT32), \"many\"",
        ),
        (job_with(taskCount=2**31), "(TYPE_INT32), 2147483648"),
        (job_with(taskCount=1.5), "(TYPE_INT32), 1.5"),
        (job_with(taskCount=True), "(TYPE_INT32), true"),
        (job_with(container={"args": [1]}), f"Invalid value at '{TASK}.containers[0].args[0]' (TYPE_STRING), 1"),
        (job_with(container={"env": [{"name": 1}]}), "containers[0].env[0].name' (TYPE_STRING), 1"),
        (job_with(container={"resources": {"limits": {"cpu": 1}}}), "limits[0].value' (TYPE_STRING), 1"),
        (job_with(container={"envFrom": [{}]}), "must not set the field(s): spec.template.spec"),
        (
            {"metadata": {"annotations": {"run.googleapis.com/launch-stage": "SOON"}}},
            "metadata.annotations[run.googleapis.com/launch-stage]: Invalid value 'SOON'",
        ),
        (
            {"metadata": "x"},
            "Invalid value at 'job.metadata' (type.googleapis.com/google.cloud.run.v1.ObjectMeta)",
        ),
        ({"metadata": {"namespace": "other"}}, "metadata.namespace: Invalid value 'other': expected 'acme'."),
        ({"kind": "Service"}, "kind: Invalid value 'Service': expected 'Job'."),
        ({"apiVersion": "v2"}, "apiVersion: Invalid value 'v2': expected 'run.googleapis.com/v1'."),
        (job_with(task={"timeoutSeconds": 10**15}), "timeoutSeconds: Invalid value '1000000000000000': expected"),
        (job_with(taskCount="1_0"), '(TYPE_INT32), "1_0"'),
        (with_volume(secret={"secretName": "s"}, emptyDir={}), "got secret, emptyDir"),
        (
            with_volume(emptyDir={"medium": "Tape"}),
            "medium: Invalid value 'Tape': expected one of '', Memory, Disk.",
        ),
        (with_volume(csi={"driver": "tape"}), "expected the driver gcsfuse.run.googleapis.com or"),
        (with_volume(csi={**BUCKET, "volumeAttributes": {"x": "y"}}), "no volumeAttributes but bucketName, mount"),
        (with_volume(csi={"driver": mapping.SQL_DRIVER, "readOnly": True}), "expected no readOnly"),
        (job_with(container={"startupProbe": {"httpGet": {}, "tcpSocket": {}}}), "got httpGet, tcpSocket"),
        (job_with(container={"env": [{"name": "A", "value": "b", "valueFrom": KEY}]}), "got value, valueFrom"),
        (annotated("network-interfaces", "[1]"), "Invalid value '[1]': expected a JSON list of objects."),
        (annotated("network-interfaces", '[{"x":1}]'), "Unknown name \"x\" at '[0]': Cannot find field."),
        (annotated("network-interfaces", "["), "Invalid value '[': expected a JSON list of objects."),
        (annotated("container-dependencies", '{"a":1}'), "expected a JSON object of lists of strings."),
        (annotated("container-dependencies", '{"b":[]}'), "expected the names of containers, got 'b'."),
        (annotated("base-images", '{"a":[]}'), "expected a JSON object of strings."),
        (annotated("gpu-zonal-redundancy-disabled", "yes"), "expected true or false."),
    ],
)
def test_malformed_job_is_rejected(v1, message):
    """An unknown name and a value of a wrong type are rejected, with their path."""
    with pytest.raises(ServiceError) as raised:
        read(v1)

    assert raised.value.code == "INVALID_ARGUMENT"
    assert message in raised.value.message


def test_every_problem_is_reported():
    """The error has one violation for each problem."""
    with pytest.raises(ServiceError) as raised:
        read(job_with(taskCount="a", container={"img": "", "name": 1}))

    [details] = raised.value.details
    assert len(details["fieldViolations"]) == 3
    assert raised.value.message.count("\n") == 2


@pytest.mark.parametrize(
    ("annotations", "task"),
    [
        ({"execution-environment": "gen2"}, {"execution_environment": "EXECUTION_ENVIRONMENT_GEN2"}),
        ({"encryption-key": "k"}, {"encryption_key": "k"}),
        ({"gpu-zonal-redundancy-disabled": "true"}, {"gpu_zonal_redundancy_disabled": True}),
        ({"vpc-access-egress": "private-ranges-only"}, {"vpc_access": {"egress": "PRIVATE_RANGES_ONLY"}}),
        ({"vpc-access-egress": "all"}, {"vpc_access": {"egress": "ALL_TRAFFIC"}}),
        ({"vpc-access-connector": "c"}, {"vpc_access": {"connector": "c"}}),
        (
            {"network-interfaces": '[{"network":"default","tags":["a"]}]'},
            {"vpc_access": {"network_interfaces": [{"network": "default", "tags": ["a"]}]}},
        ),
        (
            {"cloudsql-instances": "acme:europe-west4:main,acme:europe-west4:logs"},
            {
                "volumes": [
                    {
                        "name": "cloudsql",
                        "cloud_sql_instance": {"instances": ["acme:europe-west4:main", "acme:europe-west4:logs"]},
                    }
                ],
                "containers": [
                    {
                        "name": "app",
                        "volume_mounts": [{"name": "cloudsql", "mount_path": "/cloudsql"}],
                    }
                ],
            },
        ),
        ({"container-dependencies": '{"app":["b"]}'}, {"containers": [{"name": "app", "depends_on": ["b"]}]}),
    ],
    ids=str,
)
def test_annotations_of_a_template_are_fields(annotations, task):
    """System annotations of v1 are fields of v2, never annotations of both."""
    annotations = {f"run.googleapis.com/{name}": value for name, value in annotations.items()}
    spec = {"template": {"spec": {"containers": [{"name": "app"}]}}}
    v1 = {"spec": {"template": {"metadata": {"annotations": annotations}, "spec": spec}}}
    job = read(v1)

    assert job.template.annotations == {}
    assert job.template.template == run_v2.TaskTemplate({"containers": [{"name": "app"}], **task})


SQL = {"name": "cloudsql", "cloud_sql_instance": {"instances": ["p:r:i"]}}
SQL_MOUNT = {"name": "cloudsql", "mount_path": "/cloudsql"}
SQL_ANNOTATION = ("cloudsql-instances", "p:r:i")
DISK = {"name": "cloudsql", "empty_dir": {}}
MOUNTED_DISK = job_with(
    container={"volumeMounts": [{"name": "cloudsql", "mountPath": "/cloudsql"}]},
    task={"volumes": [{"name": "cloudsql", "emptyDir": {}}]},
)


def tasks(*containers, **fields):
    return run_v2.TaskTemplate({"containers": [{"image": "app", **each} for each in containers], **fields})


def named(annotation=None, *names):
    job = annotated(*annotation) if annotation else job_with()
    job["spec"]["template"]["spec"]["template"]["spec"]["containers"] = [
        {"image": "app", **({"name": name} if name else {})} for name in names
    ]
    return job


BOOST = {"resources": {"startup_cpu_boost": True}}


@pytest.mark.parametrize(
    ("stored", "v1", "expected"),
    [
        (tasks({"name": "a", **BOOST}), named(None, "b"), tasks({"name": "b", **BOOST})),
        (tasks(BOOST), named(None, "main"), tasks({"name": "main", **BOOST})),
        (
            tasks({"name": "a", **BOOST}, {"name": "b"}),
            named(None, "b", "a"),
            tasks({"name": "b"}, {"name": "a", **BOOST}),
        ),
        (tasks({"name": "a", **BOOST}, {"name": "b"}), named(None, "b"), tasks({"name": "b"})),
        (
            tasks({"name": "a", "volume_mounts": [SQL_MOUNT]}, volumes=[SQL]),
            named(SQL_ANNOTATION, "b"),
            tasks({"name": "b", "volume_mounts": [SQL_MOUNT]}, volumes=[SQL]),
        ),
        (
            tasks({"name": "a", "volume_mounts": [SQL_MOUNT]}, {"name": "b"}, volumes=[SQL]),
            named(SQL_ANNOTATION, "b"),
            tasks({"name": "b", "volume_mounts": [SQL_MOUNT]}, volumes=[SQL]),
        ),
        (tasks({"volume_mounts": [SQL_MOUNT]}, volumes=[SQL]), named(None, ""), tasks({})),
        (
            tasks({"volume_mounts": [SQL_MOUNT]}, volumes=[SQL]),
            MOUNTED_DISK,
            tasks({"volume_mounts": [SQL_MOUNT]}, volumes=[DISK]),
        ),
        (
            tasks({"volume_mounts": [SQL_MOUNT]}, volumes=[DISK]),
            MOUNTED_DISK,
            tasks({"volume_mounts": [SQL_MOUNT]}, volumes=[DISK]),
        ),
        (
            tasks(),
            job_with(container={"env": [{"name": "A", "value": "", "valueFrom": KEY}]}),
            tasks({"env": [{"name": "A", "value_source": {"secret_key_ref": {"secret": "s", "version": "1"}}}]}),
        ),
    ],
)
def test_replacement_keeps_what_v1_does_not_name(stored, v1, expected):
    """A renamed container keeps its fields; Cloud SQL keeps its mount as long as its annotation is there."""
    job = read(v1, run_v2.Job(template=run_v2.ExecutionTemplate(template=stored)))

    assert job.template.template == expected


@pytest.mark.parametrize(
    ("volume", "shown"),
    [(DISK, [{"name": "cloudsql", "mountPath": "/cloudsql"}]), (SQL, None)],
    ids=["empty directory", "Cloud SQL"],
)
def test_only_mounts_of_cloud_sql_are_hidden(volume, shown):
    """v1 shows each mount but that of the volume which its annotation stands for."""
    job = run_v2.Job(template={"template": tasks({"volume_mounts": [SQL_MOUNT]}, volumes=[volume])})
    [container] = mapping.JOB.render(extend(job))["spec"]["template"]["spec"]["template"]["spec"]["containers"]

    assert container.get("volumeMounts") == shown


@pytest.mark.parametrize(
    ("fields", "state"),
    [
        ({}, "Pending"),
        ({"start_time": NOW}, "Running"),
        ({"start_time": NOW, "completion_time": NOW, "conditions": [DONE]}, "Succeeded"),
        ({"start_time": NOW, "completion_time": NOW, "conditions": [FAILED]}, "Failed"),
        ({"start_time": NOW, "completion_time": NOW, "conditions": [CANCELLED]}, "Cancelled"),
        ({"completion_time": NOW, "conditions": [CANCELLED]}, "Abandoned"),
    ],
)
def test_task_has_a_running_state(fields, state):
    """The state of a task is a label of it in v1."""
    name = "projects/acme/locations/europe-west4/jobs/app/executions/app-1/tasks/app-1-task0"

    labels = resources.TASK.write(run_v2.Task(name=name, **fields))["metadata"]["labels"]

    assert labels["run.googleapis.com/runningState"] == state


@pytest.fixture(scope="module")
def call():
    """Call the v1 API of an emulator, with a host and a path."""
    with Emulator(grace=1.0) as emulator:

        def call(verb, path, host="europe-west4-run.googleapis.com", **body):
            url = f"{emulator.http}/apis/run.googleapis.com/v1/namespaces/acme/{path}"
            response = requests.request(verb, url, json=body or None, headers={"Host": host}, timeout=10)
            return response.status_code, response.json()

        yield call


@pytest.mark.parametrize("name", ["scalingMode", "sources", "build-id"])
def test_annotation_without_a_field_of_v2_is_kept(call, name):
    """An annotation of gcloud's that no field of v2 stands for is kept."""
    annotations = {f"run.googleapis.com/{name}": "value"}
    spec = {"template": {"spec": {"containers": [{"image": "app"}]}}}
    pool = f"pool-{name.lower()}"
    created, _ = call("POST", "workerpools", metadata={"name": pool, "annotations": annotations}, spec=spec)
    _, read = call("GET", f"workerpools/{pool}")

    assert created == 200
    assert annotations.items() <= read["metadata"]["annotations"].items()


def test_replacement_of_an_old_version_is_refused(call):
    """A replacement with the version of an earlier read is refused."""
    _, created = call("POST", "jobs", metadata={"name": "versions"}, **job_with())
    first = call("PUT", "jobs/versions", **created)
    status, second = call("PUT", "jobs/versions", **created)

    assert (first[0], status, second["error"]["status"]) == (200, 409, "ABORTED")


@pytest.mark.parametrize(
    ("verb", "path", "body"),
    [
        ("POST", "jobs", {"metadata": None}),
        ("PUT", "jobs/malformed", {"metadata": "x"}),
        ("PUT", "jobs/malformed", {"metadata": []}),
        ("PUT", "jobs/malformed", {"metadata": {"name": "other"}}),
        ("GET", "jobs?limit=99999999999", {}),
        ("GET", f"jobs?limit={'9' * 5000}", {}),
        ("POST", "jobs/work:run", {"overrides": 5}),
        ("POST", "jobs/work:run", {"overrides": {"timeoutSeconds": 10**15}}),
    ],
)
def test_malformed_request_is_answered(call, verb, path, body):
    """A malformed request is INVALID_ARGUMENT, and no path of a violation begins with a dot."""
    status, answer = call(verb, path, **body)

    assert (status, answer["error"]["status"]) == (400, "INVALID_ARGUMENT")
    assert "at '." not in answer["error"]["message"]


def test_replacement_waits_for_a_change_at_the_same_time(call, monkeypatch):
    """A replacement without a version is one of the newest resource, also if that changes meanwhile."""
    call("POST", "jobs", metadata={"name": "both"}, **job_with())
    overlay, others = resources.Kind.read, [job_with(task={"serviceAccountName": "other"})]

    def read_late(kind, checked, stored):
        found = overlay(kind, checked, stored)
        if others:
            call("PUT", "jobs/both", **others.pop())
        return found

    monkeypatch.setattr(resources.Kind, "read", read_late)
    status, replaced = call("PUT", "jobs/both", **job_with(taskCount=2))

    assert (status, replaced["metadata"]["generation"]) == (200, 3)


@pytest.mark.parametrize(
    ("path", "status"), [("jobs", 200), ("executions", 200), ("tasks", 200), ("jobs/work", 501), ("tasks/a", 501)]
)
def test_only_lists_are_of_all_regions(call, path, status):
    """A host without a region serves lists of all regions, and nothing else."""
    assert call("GET", path, host="run.googleapis.com")[0] == status


@pytest.mark.parametrize("kind", ["jobs", "executions", "tasks", "workerpools"])
def test_every_list_has_a_selector(call, kind):
    """Every list refuses a text that is no selector, and returns nothing for labels that nothing has."""
    assert call("GET", f"{kind}?labelSelector=a%3E1")[0] == 400
    assert call("GET", f"{kind}?labelSelector=missing")[1]["items"] == []


SELECTED = {"app": "web", "tier": "", "run.googleapis.com/job": "work"}


@pytest.mark.parametrize(
    ("text", "matches"),
    [
        ("", True),
        ("app=web", True),
        ("app == web", True),
        ("app = other", False),
        ("app!=other", True),
        ("app != web", False),
        ("missing!=web", True),
        ("app in (web, other)", True),
        ("app in (other)", False),
        ("app notin (other)", True),
        ("app notIn (web,other)", False),
        ("missing notin (web)", True),
        ("app", True),
        ("missing", False),
        ("!missing", True),
        ("! app", False),
        ("tier=", True),
        ("tier in (,a)", True),
        ("run.googleapis.com/job = work,app in (web,other),!missing", True),
        ("run.googleapis.com/job = work,app in (web,other),missing", False),
    ],
)
def test_label_selector_selects(text, matches):
    """Selectors have the meaning that Kubernetes documents."""
    assert selectors.parse(text).matches(SELECTED) is matches


@pytest.mark.parametrize(
    "text", ["app>1", "app=web other", "=web", "app in web", "app in (a", "app,,b", ",", "a=b=c", "a~b"]
)
def test_unknown_label_selector_is_rejected(text):
    """A text that is no label selector is rejected."""
    with pytest.raises(ServiceError, match="Invalid label selector") as raised:
        selectors.parse(text)

    assert raised.value.code == "INVALID_ARGUMENT"


def test_unknown_task_is_named(call):
    """The error of a missing task names the task."""
    status, error = call("GET", "tasks/nope")

    assert (status, "'nope' of kind 'TASK'" in error["error"]["message"]) == (404, True)
