"""The surface of gcloud as tables: a command, its flags, and the state in v2 or the output."""

from __future__ import annotations

import json
import shlex

import pytest
import requests

from cloudrun_jobs.emulator import Emulator
from tests.emulator.cloud import PLACE, eventually
from tests.emulator.gcloud_cli import NEEDS_GCLOUD, Gcloud

pytestmark = NEEDS_GCLOUD
ACCOUNT = "runtime@acme.iam.gserviceaccount.com"
KEY = "projects/acme/locations/europe-west4/keyRings/ring/cryptoKeys/key"
CONTAINER, TASK = "template.template.containers.0", "template.template"


@pytest.fixture(scope="module")
def project():
    """Start one emulator for all rows."""
    with Emulator(grace=1.0, secrets={"token": "secret"}) as emulator:
        yield emulator


@pytest.fixture(scope="module")
def gcloud(project, tmp_path_factory):
    """Run a command line of gcloud."""
    run = Gcloud(project.http, tmp_path_factory.mktemp("gcloud"))
    return lambda line: run(*shlex.split(line))


@pytest.fixture(scope="module")
def rest(project):
    """Call v2 over REST, which has all fields."""

    def call(verb, path, **body):
        url = f"{project.http}/v2/{PLACE}/{path}"
        return requests.request(verb, url, json=body or None, timeout=10).json()

    return call


def value(resource, path):
    """Return what is at a dotted path, or None."""
    for name in path.split("."):
        if resource is None:
            return None
        resource = resource[int(name)] if isinstance(resource, list) else resource.get(name)
    return resource


def mount(name, path):
    return [{"name": name, "mountPath": path}]


def numbered(rows):
    return [pytest.param(number, *row, id=row[0]) for number, row in enumerate(rows)]


VOLUME = "--add-volume-mount=volume=v,mount-path=/v --add-volume=name=v"
SECRET_KEY = {"secretKeyRef": {"secret": "token", "version": "latest"}}
CREATED = [
    ("--args=a,b", f"{CONTAINER}.args", ["a", "b"]),
    ("--command=python,manage.py", f"{CONTAINER}.command", ["python", "manage.py"]),
    ("--set-env-vars=A=1,B=2", f"{CONTAINER}.env", [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}]),
    ("--set-secrets=T=token:latest", f"{CONTAINER}.env", [{"name": "T", "valueSource": SECRET_KEY}]),
    (
        "--set-secrets=T=projects/12/secrets/token:1",
        f"{CONTAINER}.env.0.valueSource.secretKeyRef.secret",
        "projects/12/secrets/token",
    ),
    (
        "--set-secrets=/etc/token=token:1",
        f"{TASK}.volumes.0.secret",
        {"secret": "token", "items": [{"path": "token", "version": "1"}]},
    ),
    ("--set-secrets=/etc/token=token:1 --tasks=2", f"{CONTAINER}.volumeMounts.0.mountPath", "/etc"),
    (f"{VOLUME},type=in-memory --tasks=1", f"{CONTAINER}.volumeMounts", mount("v", "/v")),
    (
        f"{VOLUME},type=in-memory,size-limit=1Gi",
        f"{TASK}.volumes.0.emptyDir",
        {"medium": "MEMORY", "sizeLimit": "1Gi"},
    ),
    (
        f"{VOLUME},type=nfs,location=10.0.0.1:/data,readonly=true",
        f"{TASK}.volumes.0.nfs",
        {"server": "10.0.0.1", "path": "/data", "readOnly": True},
    ),
    (
        f"{VOLUME},type=cloud-storage,bucket=acme,readonly=true",
        f"{TASK}.volumes.0.gcs",
        {"bucket": "acme", "readOnly": True},
    ),
    ("--tasks=3 --parallelism=2", "template.taskCount", 3),
    ("--parallelism=2 --tasks=4", "template.parallelism", 2),
    ("--max-retries=0", f"{TASK}.maxRetries", 0),
    ("--task-timeout=1h", f"{TASK}.timeout", "3600s"),
    ("--cpu=2 --memory=2Gi", f"{CONTAINER}.resources.limits", {"cpu": "2", "memory": "2Gi"}),
    (f"--service-account={ACCOUNT}", f"{TASK}.serviceAccount", ACCOUNT),
    ("--labels=team=web", "labels", {"team": "web"}),
    (f"--key={KEY}", f"{TASK}.encryptionKey", KEY),
    ("--binary-authorization=default", "binaryAuthorization", {"useDefault": True}),
    (
        "--vpc-connector=main --vpc-egress=all-traffic",
        f"{TASK}.vpcAccess",
        {"connector": "main", "egress": "ALL_TRAFFIC"},
    ),
    (
        "--network=default --subnet=jobs --network-tags=a,b",
        f"{TASK}.vpcAccess.networkInterfaces",
        [{"network": "default", "subnetwork": "jobs", "tags": ["a", "b"]}],
    ),
    (
        "--set-cloudsql-instances=acme:europe-west4:main",
        f"{TASK}.volumes",
        [{"name": "cloudsql", "cloudSqlInstance": {"instances": ["acme:europe-west4:main"]}}],
    ),
    ("--execution-environment=gen2", f"{TASK}.executionEnvironment", "EXECUTION_ENVIRONMENT_GEN2"),
]


@pytest.mark.parametrize(("number", "flags", "path", "expected"), numbered(CREATED))
def test_gcloud_creates_a_job(gcloud, rest, number, flags, path, expected):
    """Each flag of ``gcloud run jobs create`` is a field of the job in v2."""
    gcloud(f"run jobs create created-{number} --image=app {flags}")

    assert value(rest("GET", f"jobs/created-{number}"), path) == expected


SIDECAR = "--container=a --image=app --container=b --image=side"
BETA = [
    ("--gpu=1 --gpu-type=nvidia-l4 --cpu=4 --memory=16Gi", f"{TASK}.nodeSelector", {"accelerator": "nvidia-l4"}),
    (
        f"'{VOLUME},type=cloud-storage,bucket=acme,mount-options=uid=1;gid=2'".replace(" --", "' '--"),
        f"{TASK}.volumes.0.gcs.mountOptions",
        ["uid=1", "gid=2"],
    ),
    (
        "--container=a --image=app --container=b --image=side --depends-on=a",
        f"{TASK}.containers.1.dependsOn",
        ["a"],
    ),
]


@pytest.mark.parametrize(("number", "flags", "path", "expected"), numbered(BETA))
def test_beta_gcloud_creates_a_job(gcloud, rest, number, flags, path, expected):
    """Flags of the beta are fields too, and the job has its launch stage."""
    image = "" if "--image" in flags else "--image=app"
    gcloud(f"beta run jobs create beta-{number} {image} {flags}")
    job = rest("GET", f"jobs/beta-{number}")

    assert (value(job, path), job["launchStage"]) == (expected, "BETA")


POLICY = {"policy": "projects/acme/platforms/cloudRun/policies/policy"}
# A job with every field that v2 has, also those that v1 lacks.
EVERYTHING = {
    "labels": {"team": "web"},
    "annotations": {"own": "kept"},
    "launchStage": "BETA",
    # gcloud drops the justification of a breakglass at every update.
    "binaryAuthorization": POLICY,
    "template": {
        "labels": {"run": "nightly"},
        "annotations": {"own": "kept"},
        "parallelism": 1,
        "taskCount": 2,
        "delayExecution": True,
        "template": {
            "containers": [
                {
                    "name": "app",
                    "image": "app",
                    "command": ["python"],
                    "args": ["manage.py"],
                    "env": [
                        {"name": "A", "value": "1"},
                        {"name": "T", "valueSource": SECRET_KEY},
                        {"name": "E", "value": ""},
                    ],
                    "resources": {
                        "limits": {"cpu": "4", "memory": "16Gi", "nvidia.com/gpu": "1"},
                        "startupCpuBoost": True,
                    },
                    "ports": [{"name": "http1", "containerPort": 8080}],
                    "volumeMounts": [
                        {"name": "files", "mountPath": "/etc/files"},
                        {"name": "cloudsql", "mountPath": "/cloudsql"},
                        {"name": "memory", "mountPath": "/memory", "subPath": "a"},
                        {"name": "nfs", "mountPath": "/nfs"},
                        {"name": "bucket", "mountPath": "/bucket"},
                    ],
                    "workingDir": "/srv",
                    "startupProbe": {"httpGet": {"path": "/up", "port": 8080}, "periodSeconds": 3},
                    "dependsOn": ["side"],
                    "baseImageUri": "python312",
                },
                {"name": "side", "image": "side", "resources": {"limits": {"cpu": "1", "memory": "1Gi"}}},
            ],
            "volumes": [
                {
                    "name": "files",
                    "secret": {
                        "secret": "projects/other/secrets/token",
                        "defaultMode": 256,
                        "items": [{"path": "token", "version": "1", "mode": 292}],
                    },
                },
                {"name": "cloudsql", "cloudSqlInstance": {"instances": ["acme:europe-west4:main"]}},
                {"name": "memory", "emptyDir": {"medium": "MEMORY", "sizeLimit": "1Gi"}},
                {"name": "nfs", "nfs": {"server": "10.0.0.1", "path": "/data", "readOnly": True}},
                {"name": "bucket", "gcs": {"bucket": "acme", "readOnly": True, "mountOptions": ["uid=1"]}},
            ],
            "maxRetries": 0,
            "timeout": "60s",
            "serviceAccount": ACCOUNT,
            "executionEnvironment": "EXECUTION_ENVIRONMENT_GEN2",
            "encryptionKey": KEY,
            "vpcAccess": {"egress": "ALL_TRAFFIC", "networkInterfaces": [{"network": "default", "tags": ["a"]}]},
            "nodeSelector": {"accelerator": "nvidia-l4"},
            "gpuZonalRedundancyDisabled": True,
        },
    },
}
DECLARED = ("labels", "annotations", "launchStage", "binaryAuthorization", "template")


def declaration(job):
    """Return what a job declares, without the marks of the client."""
    template = {key: each for key, each in job["template"].items() if key not in ("client", "clientVersion")}
    labels = {key: each for key, each in template["labels"].items() if "nonce" not in key}
    return {key: job[key] for key in DECLARED if key in job} | {"template": {**template, "labels": labels}}


def replaced(resource, path, expected):
    """Return a copy with another value at a dotted path; None removes it."""
    name, _, rest = path.partition(".")
    if isinstance(resource, list):
        return [replaced(e, rest, expected) if str(n) == name else e for n, e in enumerate(resource)]
    other = {key: each for key, each in resource.items() if key != name}
    new = replaced(resource[name], rest, expected) if rest else expected
    return other if new is None else {**other, name: new}


ENV = EVERYTHING["template"]["template"]["containers"][0]["env"]
UPDATED = [
    ("--tasks=2", "template.taskCount", 2),
    ("--tasks=3", "template.taskCount", 3),
    ("--parallelism=2", "template.parallelism", 2),
    ("--max-retries=4", f"{TASK}.maxRetries", 4),
    ("--task-timeout=5m", f"{TASK}.timeout", "300s"),
    (f"--service-account=other-{ACCOUNT}", f"{TASK}.serviceAccount", f"other-{ACCOUNT}"),
    ("--container=app --args=other", f"{CONTAINER}.args", ["other"]),
    ("--container=app --command=sh", f"{CONTAINER}.command", ["sh"]),
    ("--container=app --image=new", f"{CONTAINER}.image", "new"),
    ("--container=app --update-env-vars=A=2", f"{CONTAINER}.env.0.value", "2"),
    ("--container=app --remove-env-vars=A", f"{CONTAINER}.env", ENV[1:]),
    ("--container=app --update-secrets=T=token:2", f"{CONTAINER}.env.1.valueSource.secretKeyRef.version", "2"),
    ("--clear-network", f"{TASK}.vpcAccess", None),
    ("--breakglass=why", "binaryAuthorization", {**POLICY, "breakglassJustification": "why"}),
]


@pytest.mark.parametrize(("number", "flags", "path", "expected"), numbered(UPDATED))
def test_gcloud_updates_one_field(gcloud, rest, number, flags, path, expected):
    """An update of a job that v2 declared changes one field and keeps all others."""
    rest("POST", f"jobs?jobId=updated-{number}", **EVERYTHING)
    before = declaration(rest("GET", f"jobs/updated-{number}"))
    gcloud(f"beta run jobs update updated-{number} {flags}")

    assert declaration(rest("GET", f"jobs/updated-{number}")) == replaced(before, path, expected)


def test_declaration_has_every_field(rest):
    """The job of the updates is stored with each of its fields."""
    rest("POST", "jobs?jobId=everything", **EVERYTHING)

    assert declaration(rest("GET", "jobs/everything")) == EVERYTHING


DEPLOYED = [
    ("--port=9000", "template.containers.0.ports", [{"containerPort": 9000}]),
    ("--min-instances=1 --max-instances=3", "template.scaling", {"minInstanceCount": 1, "maxInstanceCount": 3}),
    ("--concurrency=10", "template.maxInstanceRequestConcurrency", 10),
    ("--timeout=60", "template.timeout", "60s"),
    ("--no-cpu-throttling", "template.containers.0.resources.cpuIdle", None),
    ("--cpu-throttling", "template.containers.0.resources.cpuIdle", True),
    ("--cpu-boost", "template.containers.0.resources.startupCpuBoost", True),
    ("--session-affinity", "template.sessionAffinity", True),
    ("--ingress=internal", "ingress", "INGRESS_TRAFFIC_INTERNAL_ONLY"),
    ("--set-secrets=/etc/token=token:1", "template.volumes.0.secret.secret", "token"),
    ("--execution-environment=gen1", "template.executionEnvironment", "EXECUTION_ENVIRONMENT_GEN1"),
    (
        "--startup-probe=httpGet.path=/up,httpGet.port=8080",
        "template.containers.0.startupProbe.httpGet.path",
        "/up",
    ),
    ("--no-invoker-iam-check", "invokerIamDisabled", True),
    ("--add-custom-audiences=https://web.example", "customAudiences", ["https://web.example"]),
    ("--network=default --vpc-egress=private-ranges-only", "template.vpcAccess.egress", "PRIVATE_RANGES_ONLY"),
]


@pytest.mark.parametrize(("number", "flags", "path", "expected"), numbered(DEPLOYED))
def test_gcloud_deploys_a_service(gcloud, rest, number, flags, path, expected):
    """Each flag of ``gcloud run deploy`` is a field of the service in v2."""
    gcloud(f"run deploy web-{number} --image=app --no-allow-unauthenticated {flags}")

    assert value(rest("GET", f"services/web-{number}"), path) == expected


@pytest.fixture(scope="module")
def executions(gcloud, rest):
    """Run a job that succeeds, and one whose second task fails; return the executions by job."""
    shell = "--image=app --command=/bin/sh --max-retries=0"
    gcloud(f"run jobs create good {shell} --args=-c,true --labels=kind=good")
    gcloud(f"run jobs create half {shell} --args='-c,exit $CLOUD_RUN_TASK_INDEX' --tasks=2")
    good = gcloud("run jobs execute good --wait --args=-c,true --update-env-vars=A=1")
    half = gcloud("run jobs execute half --async")
    names = {"good": good["metadata"]["name"], "half": half["metadata"]["name"]}
    eventually(lambda: rest("GET", f"jobs/half/executions/{names['half']}").get("completionTime"))
    return names


EXITED = "Container called exit(1)."
ALL = "run jobs executions tasks list"
READ = [
    ("run jobs describe good", "spec.template.spec.template.spec.containers.0.args", ["-c", "true"]),
    ("run jobs describe good", "status.executionCount", 1),
    ("run jobs list --filter=metadata.labels.kind=good", "0.metadata.name", "good"),
    ("run jobs executions describe {good}", "status.succeededCount", 1),
    ("run jobs executions describe {good}", "spec.template.spec.containers.0.env.0.value", "1"),
    ("run jobs executions list --job=good", "0.metadata.labels.run!googleapis!com/job", "good"),
    ("run jobs executions list --job=missing", "0", None),
    (f"{ALL} --execution={{half}} --succeeded", "0.status.index", 0),
    (f"{ALL} --execution={{half}} --succeeded", "1", None),
    (f"{ALL} --execution={{half}} --failed", "0.status.index", 1),
    (f"{ALL} --execution={{half}} --failed", "0.metadata.labels.run!googleapis!com/runningState", "Failed"),
    (f"{ALL} --execution={{half}} --completed", "1.status.index", 1),
    (f"{ALL} --execution={{half}} --running", "0", None),
    (f"{ALL} --execution={{half}} --abandoned", "0", None),
    (f"{ALL} --execution={{half}} --no-completed", "0", None),
    ("run jobs executions tasks describe {half}-task1", "status.lastAttemptResult.exitCode", 1),
    (
        "run jobs add-iam-policy-binding good --member=user:a@b.c --role=roles/run.invoker",
        "bindings.0.role",
        "roles/run.invoker",
    ),
    ("run jobs get-iam-policy half", "version", 1),
    ("secrets versions list token", "0.state", "ENABLED"),
    ("secrets create other --replication-policy=automatic", "name", "projects/acme/secrets/other"),
    ("run regions list", "0.locationId", "africa-south1"),
    ("beta run worker-pools list", "0", None),
    (
        "scheduler jobs create http tick --location=europe-west4 --schedule='0 * * * *' --uri=https://run.googleapis.com",
        "schedule",
        "0 * * * *",
    ),
    (
        "logging read 'resource.labels.job_name=half severity=WARNING'",
        "0.textPayload",
        "Container called exit(1).",
    ),
]


@pytest.mark.parametrize(("line", "path", "expected"), READ, ids=lambda each: str(each)[:60])
def test_gcloud_shows(gcloud, executions, line, path, expected):
    """Commands that read return what the service would."""
    shown = gcloud(line.format(**executions))

    assert shown_value(shown, path) == expected


def shown_value(shown, path):
    """Return what is at a dotted path, in which ``!`` is a dot of a name; None if a list ends before."""
    for name in path.split("."):
        if isinstance(shown, list):
            shown = shown[int(name)] if int(name) < len(shown) else None
        else:
            shown = shown[name.replace("!", ".")]
    return shown


def test_gcloud_replaces_a_job_from_a_file(gcloud, rest, tmp_path):
    """``describe`` gives a file that ``replace`` takes, and the job is the same."""
    # This gcloud does not write fields that it does not know.
    rest("POST", "jobs?jobId=exported", **replaced(EVERYTHING, "template.delayExecution", None))
    before = declaration(rest("GET", "jobs/exported"))
    file = tmp_path / "job.json"
    file.write_text(json.dumps(gcloud("run jobs describe exported")))
    gcloud(f"run jobs replace {file}")

    assert declaration(rest("GET", "jobs/exported")) == before


def test_gcloud_deletes(gcloud, rest):
    """A deleted job is gone."""
    gcloud("run jobs create old --image=app")
    gcloud("run jobs delete old")

    assert rest("GET", "jobs/old")["error"]["code"] == 404
