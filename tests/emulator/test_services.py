"""Services, their revisions and traffic, and worker pools: what gcloud writes is read back."""

from __future__ import annotations

import json
from urllib.request import Request, urlopen

import grpc
import pytest
from google.api_core import exceptions
from google.cloud import run_v2
from google.cloud.run_v2.services.revisions.transports import RevisionsGrpcTransport
from google.cloud.run_v2.services.services.transports import ServicesGrpcTransport

from cloudrun_jobs.emulator import Emulator, names
from cloudrun_jobs.emulator.config import InvalidConfiguration
from cloudrun_jobs.emulator.engine.services import LATEST, REVISION
from cloudrun_jobs.emulator.errors import ServiceError
from cloudrun_jobs.emulator.frontends.knative import resources
from tests.emulator.cloud import PLACE
from tests.emulator.gcloud_cli import NEEDS_GCLOUD, Gcloud

WEB = f"{PLACE}/services/web"
IMAGE = "europe-west4-docker.pkg.dev/acme/app/web"


def declared(image=f"{IMAGE}:1", **fields):
    """Return a service of one container."""
    return run_v2.Service(template={"containers": [{"image": image}]}, **fields)


@pytest.fixture
def channel(emulator):
    with grpc.insecure_channel(emulator.grpc) as channel:
        yield channel


@pytest.fixture
def services(channel):
    return run_v2.ServicesClient(transport=ServicesGrpcTransport(channel=channel))


@pytest.fixture
def revisions(channel):
    return run_v2.RevisionsClient(transport=RevisionsGrpcTransport(channel=channel))


def create(services, service=None, service_id="web"):
    return services.create_service(
        parent=PLACE, service=declared() if service is None else service, service_id=service_id
    ).result()


def test_service_has_defaults_and_a_url(services):
    """A new service serves its first revision, with the defaults of Cloud Run."""
    service = create(services)

    assert service.uri == "https://web-acme.europe-west4.run.app"
    assert [(status.revision, status.percent) for status in service.traffic_statuses] == [
        (service.latest_ready_revision.rpartition("/")[2], 100)
    ]
    assert service.template.timeout.total_seconds() == 300
    assert dict(service.template.containers[0].resources.limits) == {"cpu": "1000m", "memory": "512Mi"}


def test_only_a_changed_template_makes_a_revision(services, revisions):
    """A change of the template makes a revision; a change of the traffic does not."""
    first = create(services)
    changed = run_v2.Service(first)
    changed.template.containers[0].image = f"{IMAGE}:2"
    second = services.update_service(service=changed).result()
    serving_first = first.latest_ready_revision.rpartition("/")[2]
    second.traffic = [{"type_": REVISION, "revision": serving_first, "percent": 100}]
    third = services.update_service(service=second).result()
    listed = list(revisions.list_revisions(parent=WEB))

    assert [each.name for each in listed] == [second.latest_ready_revision, first.latest_ready_revision]
    assert third.latest_ready_revision == second.latest_ready_revision
    assert [status.revision for status in third.traffic_statuses] == [serving_first]
    assert revisions.get_revision(name=listed[1].name).containers[0].image == f"{IMAGE}:1"


def test_update_mask_keeps_the_other_fields(services):
    """An update with a mask changes only its fields."""
    create(services, declared(labels={"team": "web"}))
    minimum = run_v2.Service(name=WEB, template={"scaling": {"min_instance_count": 1}})
    mask = {"paths": ["template.scaling.min_instance_count"]}
    updated = services.update_service(request={"service": minimum, "update_mask": mask}).result()

    assert updated.template.scaling.min_instance_count == 1
    assert (dict(updated.labels), updated.template.containers[0].image) == ({"team": "web"}, f"{IMAGE}:1")


@pytest.mark.parametrize(
    ("service", "message"),
    [
        (run_v2.Service(), "at least one container"),
        (declared(image=""), "an image is required"),
        (declared(traffic=[{"percent": 60, "type_": LATEST}]), "add up to 100, got 60"),
        (
            declared(traffic=[{"percent": 100, "type_": REVISION, "revision": "web-9"}]),
            "'web-9' is not found",
        ),
        (declared(traffic=[{"percent": 100, "type_": LATEST, "tag": "Next"}]), "Traffic tag 'Next'"),
        (declared(name=f"{PLACE}/services/other"), "Violation in Service.name"),
    ],
)
def test_invalid_service_is_rejected(service, message, services):
    """A service that Cloud Run rejects is rejected, and nothing is created."""
    with pytest.raises(exceptions.InvalidArgument, match=message):
        create(services, service)

    assert list(services.list_services(parent=PLACE)) == []


def test_deleted_service_is_gone_with_its_revisions(services, revisions):
    """A deleted service, its revisions and its name are free again."""
    create(services)
    with pytest.raises(exceptions.AlreadyExists):
        create(services)
    services.delete_service(name=WEB).result()

    assert list(revisions.list_revisions(parent=f"{PLACE}/services/-")) == []
    with pytest.raises(exceptions.NotFound, match="Resource 'web' of kind 'SERVICE'"):
        services.get_service(name=WEB)
    assert create(services).generation == 1


def test_services_outlive_the_emulator(tmp_path):
    """With `state`, services and revisions are there after a restart."""
    options = {"state": tmp_path / "state", "grace": 1.0}
    with Emulator(**options) as first, grpc.insecure_channel(first.grpc) as channel:
        name = create(
            run_v2.ServicesClient(transport=ServicesGrpcTransport(channel=channel))
        ).latest_ready_revision
    with Emulator(**options) as second, grpc.insecure_channel(second.grpc) as channel:
        revisions = run_v2.RevisionsClient(transport=RevisionsGrpcTransport(channel=channel))

        assert second.services[WEB].latest_ready_revision == revisions.get_revision(name=name).name


@pytest.mark.parametrize("cloudrun_emulator_options", [{"services": {"web": "http://127.0.0.1:8000/"}}])
def test_local_url_answers_for_a_service(services):
    """A configured local URL is that of the service, and of its tags."""
    traffic = [{"percent": 100, "type_": LATEST, "tag": "next"}]
    service = create(services, declared(traffic=traffic))

    assert (service.uri, service.traffic_statuses[0].uri) == ("http://127.0.0.1:8000", "http://127.0.0.1:8000")


@pytest.mark.parametrize("url", ["https://example.com", "127.0.0.1:80", "ftp://127.0.0.1", ""])
def test_url_of_another_machine_is_refused(url):
    """The emulator calls no other machine, so a service has no such URL."""
    with pytest.raises(InvalidConfiguration, match="a URL of this machine for the service 'web'"):
        Emulator(services={"web": url})


BUCKET = {"driver": "gcsfuse.run.googleapis.com", "volumeAttributes": {"bucketName": "acme-data"}}
V1 = {
    "metadata": {
        "name": "web",
        "annotations": {
            "run.googleapis.com/ingress": "internal",
            "run.googleapis.com/minScale": "2",
            "own": "kept",
        },
        "labels": {"team": "web"},
    },
    "spec": {
        "template": {
            "metadata": {
                "name": "web-one",
                "labels": {"a": "b"},
                "annotations": {
                    "autoscaling.knative.dev/minScale": "1",
                    "autoscaling.knative.dev/maxScale": "5",
                    "run.googleapis.com/cpu-throttling": "false",
                    "run.googleapis.com/startup-cpu-boost": "true",
                    "run.googleapis.com/execution-environment": "gen2",
                    "run.googleapis.com/cloudsql-instances": "acme:europe-west4:main",
                    "run.googleapis.com/vpc-access-egress": "private-ranges-only",
                    "own": "kept",
                },
            },
            "spec": {
                "containerConcurrency": 8,
                "timeoutSeconds": 60,
                "serviceAccountName": "web@acme.iam.gserviceaccount.com",
                "containers": [
                    {
                        "image": f"{IMAGE}:1",
                        "env": [
                            {"name": "A", "value": "1"},
                            {"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "key", "key": "latest"}}},
                        ],
                        "ports": [{"name": "http1", "containerPort": 8080}],
                        "volumeMounts": [{"name": "files", "mountPath": "/secrets"}],
                        "startupProbe": {"httpGet": {"path": "/health/", "port": 8080}, "failureThreshold": 3},
                        "resources": {"limits": {"cpu": "2", "memory": "1Gi"}},
                    }
                ],
                "volumes": [
                    {"name": "files", "secret": {"secretName": "key", "items": [{"path": "k", "key": "1"}]}},
                    {"name": "data", "csi": {**BUCKET, "readOnly": True}},
                    {"name": "memory", "emptyDir": {"medium": "Memory", "sizeLimit": "1Gi"}},
                ],
            },
        },
        "traffic": [
            {"latestRevision": True, "percent": 90},
            {"revisionName": "web-one", "percent": 10, "tag": "t"},
        ],
    },
}


def v1(emulator, verb, path, body=None):
    """Call the v1 API as gcloud does, with the region in the host."""
    data = None if body is None else json.dumps(body).encode()
    request = Request(
        f"{emulator.http}/apis/{path}", data, {"Host": "europe-west4-run.googleapis.com"}, method=verb
    )
    with urlopen(request) as response:
        return json.load(response)


def test_service_survives_the_way_to_v2_and_back(emulator):
    """Every field of a v1 service is read back, because gcloud replaces whole services."""
    path = "serving.knative.dev/v1/namespaces/acme/services"
    v1(emulator, "POST", path, V1)
    found = v1(emulator, "GET", f"{path}/web")

    assert found["spec"] == V1["spec"]
    assert found["metadata"]["annotations"].items() >= V1["metadata"]["annotations"].items()
    assert found["metadata"]["labels"].items() >= V1["metadata"]["labels"].items()


@pytest.mark.parametrize("kind", ["configurations", "routes"])
def test_service_has_a_configuration_and_a_route(emulator, kind):
    """The configuration of a service is its template, the route its traffic."""
    path = "serving.knative.dev/v1/namespaces/acme"
    service = v1(emulator, "POST", f"{path}/services", V1)
    found = v1(emulator, "GET", f"{path}/{kind}/web")
    [listed] = v1(emulator, "GET", f"{path}/{kind}")["items"]

    assert listed == found
    assert found["spec"].items() < service["spec"].items()
    assert found["status"].items() < service["status"].items()
    assert found["kind"].lower() + "s" == kind


@pytest.mark.parametrize("kind", [resources.SERVICE, resources.WORKER_POOL], ids=lambda kind: kind.name)
@pytest.mark.parametrize(
    "resource",
    [
        {"spec": 1},
        {"spec": {"template": {"spec": {"containers": [1]}}}},
        {"spec": {"template": {"spec": {"containers": [{"image": "a", "ports": 8080}]}}}},
        {"spec": {"template": {"spec": {"containers": [], "volumes": [{"name": "a", "tape": {}}]}}}},
    ],
)
def test_malformed_resource_is_rejected(kind, resource):
    """A malformed service or worker pool is rejected with INVALID_ARGUMENT."""
    with pytest.raises(ServiceError) as raised:
        kind.check(resource, names.Location("acme", "europe-west4"))

    assert raised.value.code == "INVALID_ARGUMENT"


POOL = {
    "metadata": {"name": "worker", "annotations": {"run.googleapis.com/manualInstanceCount": "2"}},
    "spec": {
        "template": {
            "metadata": {"annotations": {"run.googleapis.com/vpc-access-egress": "private-ranges-only"}},
            "spec": {
                "serviceAccountName": "worker@acme.iam.gserviceaccount.com",
                "containers": [
                    {"image": IMAGE, "args": ["celery"], "resources": {"limits": {"cpu": "2", "memory": "4Gi"}}}
                ],
            },
        }
    },
}


def test_worker_pool_is_written_read_and_deleted(emulator):
    """A worker pool is created, replaced, listed and deleted."""
    path = "run.googleapis.com/v1/namespaces/acme/workerpools"
    v1(emulator, "POST", path, POOL)
    replaced = v1(emulator, "PUT", f"{path}/worker", POOL)
    [listed] = v1(emulator, "GET", path)["items"]
    v1(emulator, "DELETE", f"{path}/worker")

    assert listed == replaced
    assert listed["metadata"]["generation"] == 2
    assert listed["metadata"]["annotations"]["run.googleapis.com/manualInstanceCount"] == "2"
    assert listed["spec"]["template"]["spec"] == POOL["spec"]["template"]["spec"]
    assert v1(emulator, "GET", path)["items"] == []


@NEEDS_GCLOUD
def test_gcloud_deploys_a_revision_before_its_traffic(emulator, tmp_path):
    """A revision is deployed without traffic, has a URL by its tag, and gets all traffic at last."""
    gcloud = Gcloud(emulator.http, tmp_path)
    gcloud("run", "deploy", "web", f"--image={IMAGE}:1", "--no-allow-unauthenticated")
    deployed = gcloud("run", "deploy", "web", f"--image={IMAGE}:2", "--no-traffic", "--tag=next")
    first, new = deployed["status"]["traffic"]
    gcloud("run", "services", "update", "web", "--min-instances=1")
    gcloud("run", "services", "update-traffic", "web", f"--to-revisions={new['revisionName']}=100")
    served = emulator.services[WEB]
    listed = gcloud("run", "revisions", "list", "--service=web")
    [service] = gcloud("run", "services", "list")
    gcloud("run", "services", "delete", "web")

    assert (first["percent"], new["url"]) == (100, "https://next---web-acme.europe-west4.run.app")
    assert served.template.scaling.min_instance_count == 1
    assert [(s.revision, s.percent) for s in served.traffic_statuses if s.percent] == [(new["revisionName"], 100)]
    assert (service["status"]["url"], len(listed)) == ("https://web-acme.europe-west4.run.app", 3)
    assert WEB not in emulator.services
