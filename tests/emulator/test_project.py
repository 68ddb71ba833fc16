"""The services of a project: APIs, service accounts, Artifact Registry, regions and token info."""

from __future__ import annotations

from functools import partial
from uuid import uuid4

import grpc
import pytest
import requests
from google.api_core import exceptions
from google.cloud import run_v2, scheduler_v1
from google.cloud.location import locations_pb2
from google.cloud.run_v2.services.builds.transports import BuildsGrpcTransport

from cloudrun_jobs.emulator import Emulator
from cloudrun_jobs.emulator.config import InvalidConfiguration
from tests.emulator.cloud import PLACE, condition, job
from tests.emulator.rest import Rest

APIS = "v1/projects/acme/services"
ACCOUNTS = "v1/projects/acme/serviceAccounts"
REPOSITORY = f"{PLACE}/repositories/images"
DIGEST = "sha256:" + "ab" * 32
REGISTRY = "europe-west4-docker.pkg.dev/acme/images"


IMAGES = (f"{REGISTRY}/app:1", f"{REGISTRY}/team/tool@{DIGEST}")


@pytest.fixture
def cloudrun_emulator_options():
    disabled = ("cloudscheduler.googleapis.com", "run.googleapis.com")
    return {"grace": 1.0, "disabled_apis": disabled, "registry": IMAGES}


@pytest.fixture(scope="module")
def shared():
    """An emulator shared by tests that do not affect each other."""
    with Emulator(grace=1.0, registry=IMAGES) as emulator:
        yield emulator


@pytest.fixture(scope="module")
def reader(shared):
    return Rest(shared)


@pytest.fixture
def rest(emulator):
    return Rest(emulator)


@pytest.fixture
def enabled(rest):
    """Enable the APIs that are disabled at the start."""
    rest("POST", f"{APIS}:batchEnable", serviceIds=["run.googleapis.com", "cloudscheduler.googleapis.com"])


def test_call_of_a_disabled_api_fails(emulator, rest):
    """A call of a disabled API fails with the error that names the API, over REST and over gRPC."""
    error = rest.error("GET", f"v2/{PLACE}/jobs")
    with pytest.raises(exceptions.Forbidden) as caught:
        list(emulator.clients.jobs.list_jobs(parent=PLACE))

    url = "https://console.developers.google.com/apis/api/run.googleapis.com/overview?project=acme"
    message = (
        "Cloud Run Admin API has not been used in project acme before or it is disabled. Enable it by visiting "
        f"{url} then retry. If you enabled this API recently, wait a few minutes for the action to propagate to "
        "our systems and retry."
    )
    assert (error["code"], error["status"], error["message"]) == (403, "PERMISSION_DENIED", message)
    assert error["details"][0]["reason"] == "SERVICE_DISABLED"
    assert error["details"][0]["metadata"]["service"] == "run.googleapis.com"
    assert (caught.value.message, caught.value.reason) == (message, "SERVICE_DISABLED")
    assert caught.value.metadata["activationUrl"] == url


def test_enabled_api_is_served(emulator, rest):
    """Enabling an API is an operation; when it is done, the API is served."""
    operation = rest("POST", f"{APIS}/run.googleapis.com:enable")
    done = rest("GET", f"v1/{operation['name']}")

    assert "done" not in operation
    assert done["response"]["service"]["state"] == "ENABLED"
    assert list(emulator.clients.jobs.list_jobs(parent=PLACE)) == []
    assert rest("POST", f"{APIS}/run.googleapis.com:enable")["done"]
    assert rest.error("GET", f"v1/{PLACE}/jobs")["details"][0]["reason"] == "SERVICE_DISABLED"


def test_apis_are_listed_by_state(rest):
    """The APIs of a project are listed by their state, and read by name."""
    disabled = rest("GET", f"{APIS}?filter=state:DISABLED")["services"]
    enabled = rest("GET", f"{APIS}?filter=state:ENABLED&pageSize=200")["services"]
    both = rest("GET", f"{APIS}:batchGet?names={APIS[3:]}/run.googleapis.com&names={APIS[3:]}/iam.googleapis.com")

    assert [each["config"]["name"] for each in disabled] == ["cloudscheduler.googleapis.com", "run.googleapis.com"]
    assert "logging.googleapis.com" in [each["config"]["name"] for each in enabled]
    assert [each["state"] for each in both["services"]] == ["DISABLED", "ENABLED"]


def test_disabled_api_is_disabled_in_one_project(rest, enabled):
    """An API that is disabled in one project stays enabled in the others."""
    rest("POST", f"{APIS}/secretmanager.googleapis.com:disable", disableDependentServices=False)

    assert rest.error("GET", "v1/projects/acme/secrets")["details"][0]["reason"] == "SERVICE_DISABLED"
    assert "error" not in rest("GET", "v1/projects/other/secrets")


def test_unknown_api_is_rejected(reader):
    """A name that no API has is rejected."""
    error = reader.error("POST", f"{APIS}/run.googleapi.com:enable")

    assert error["message"] == "Not found or permission denied for service(s): run.googleapi.com."


@pytest.mark.parametrize("options", [{"disabled_apis": ("run",)}, {"registry": (1,)}])
def test_invalid_option_is_rejected(options):
    """An option that no API or image can have is rejected."""
    with pytest.raises(InvalidConfiguration):
        Emulator(**options)


def test_account_is_created_and_deleted(rest):
    """A service account is created, read, listed and deleted."""
    created = rest("POST", ACCOUNTS, accountId="runtime", serviceAccount={"displayName": "Runtime"})
    email = "runtime@acme.iam.gserviceaccount.com"

    assert created["name"] == f"projects/acme/serviceAccounts/{email}"
    assert rest("GET", f"v1/projects/-/serviceAccounts/{email}") == created
    assert rest("GET", ACCOUNTS)["accounts"] == [created]
    assert rest.error("POST", ACCOUNTS, accountId="runtime")["status"] == "ALREADY_EXISTS"
    assert rest.error("POST", ACCOUNTS, accountId="x")["status"] == "INVALID_ARGUMENT"
    assert rest("DELETE", f"{ACCOUNTS}/{email}") == {}
    assert rest.error("GET", f"{ACCOUNTS}/{email}")["status"] == "NOT_FOUND"
    assert rest.error("GET", f"v1/projects/-/serviceAccounts/{email}")["status"] == "PERMISSION_DENIED"


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("", True),
        ("/packages/app", True),
        ("/packages/app/tags/1", True),
        ("/packages/app/tags/2", False),
        ("/packages/team%2Ftool", True),
        (f"/packages/team%2Ftool/versions/{DIGEST}", True),
        ("/packages/team%2Ftool/tags/latest", False),
        (f"/dockerImages/team%2Ftool@{DIGEST}", True),
        ("/packages/none", False),
    ],
)
def test_only_listed_images_exist(reader, path, found):
    """With a list of images, no other image exists."""
    assert ("error" not in reader("GET", f"v1/{REPOSITORY}{path}")) == found


def test_images_are_listed(reader):
    """The images of a repository are listed with their tags."""
    images = reader("GET", f"v1/{REPOSITORY}/dockerImages")["dockerImages"]
    version = reader("GET", f"v1/{REPOSITORY}/packages/app/tags/1")["version"]

    assert {image["uri"].partition("@")[0]: image["tags"] for image in images} == {
        f"{REGISTRY}/app": ["1"],
        f"{REGISTRY}/team/tool": [],
    }
    assert version.startswith(f"{REPOSITORY}/packages/app/versions/sha256:")
    assert reader("GET", f"v1/{REPOSITORY}/packages/app/versions")["versions"][0]["name"] == version


def test_repository_is_created_and_deleted(rest):
    """A repository is created and deleted by operations."""
    operation = rest("POST", f"v1/{PLACE}/repositories?repositoryId=new", format="DOCKER")

    assert rest("GET", f"v1/{operation['name']}")["response"]["name"] == f"{PLACE}/repositories/new"
    assert rest.error("POST", f"v1/{PLACE}/repositories?repositoryId=new")["status"] == "ALREADY_EXISTS"
    assert [
        each["name"].rpartition("/")[2] for each in rest("GET", f"v1/{PLACE}/repositories")["repositories"]
    ] == [
        "images",
        "new",
    ]
    assert rest("DELETE", f"v1/{PLACE}/repositories/new")["done"]
    assert rest.error("GET", f"v1/{PLACE}/repositories/new")["status"] == "NOT_FOUND"


@pytest.mark.parametrize(
    ("image", "exists"),
    [
        (f"{REGISTRY}/app:1", True),
        (f"{REGISTRY}/app", False),
        (f"{REGISTRY}/app:2", False),
        (f"{REGISTRY}/team/tool@{DIGEST}", True),
        ("europe-west4-docker.pkg.dev/acme/other/app:1", False),
        ("us-docker.pkg.dev/cloudrun/container/job:latest", True),
        ("python:3.13", True),
    ],
)
def test_job_with_a_missing_image_fails(shared, image, exists):
    """The operation that creates a job fails if its image does not exist; images of other registries do."""
    job_id = f"work-{uuid4().hex[:8]}"
    request = run_v2.CreateJobRequest(parent=PLACE, job_id=job_id, job=job("true", image=image))
    error = shared.clients.jobs.create_job(request).exception()
    created = shared.clients.jobs.get_job(name=f"{PLACE}/jobs/{job_id}")

    assert (error is None) == exists
    assert created.terminal_condition.message == ("" if exists else f"Image '{image}' not found.")


def test_execution_needs_the_image(cloud, enabled):
    """An execution fails before its tasks start if the image is missing, and succeeds when it was pushed."""
    image = f"{REGISTRY}/app:new"
    name = f"{PLACE}/jobs/work"
    cloud.emulator.clients.jobs.create_job(parent=PLACE, job_id="work", job=job("true", image=image)).exception()
    failed = cloud.outcome(cloud.emulator.clients.jobs.run_job(name=name).metadata.name)
    requests.post(f"{cloud.emulator.http}/_emulator/images", json={"image": image}, timeout=10).raise_for_status()
    succeeded = cloud.outcome(cloud.emulator.clients.jobs.run_job(name=name).metadata.name)

    assert condition(failed).message == f"Image '{image}' not found."
    assert succeeded.succeeded_count == 1


def test_service_with_a_missing_image_serves_its_last_revision(emulator, rest, enabled):
    """A revision whose image is missing gets no traffic; deployed again after a push, it does."""
    path, image = f"v2/{PLACE}/services", f"{REGISTRY}/app:new"
    rest("POST", f"{path}?serviceId=web", template={"containers": [{"image": f"{REGISTRY}/app:1"}]})
    first = rest("GET", f"{path}/web")
    failed = rest("PATCH", f"{path}/web", template={"containers": [{"image": image}]})
    second = rest("GET", f"{path}/web")
    emulator.images.push(image)
    rest("PATCH", f"{path}/web", template={"containers": [{"image": image}]})
    third = rest("GET", f"{path}/web")

    revision = second["latestCreatedRevision"].rpartition("/")[2]
    assert failed["error"]["message"] == (
        f"Revision '{revision}' is not ready and cannot serve traffic. Image '{image}' not found."
    )
    assert second["terminalCondition"]["message"] == failed["error"]["message"]
    assert second["latestReadyRevision"] == first["latestReadyRevision"] != second["latestCreatedRevision"]
    assert third["latestReadyRevision"] == third["latestCreatedRevision"] != second["latestCreatedRevision"]


def test_each_image_exists_without_a_list():
    """Without a list of images, each image and each repository exists."""
    with Emulator() as emulator:
        rest = Rest(emulator)
        tag = rest("GET", f"v1/{REPOSITORY}/packages/app/tags/7")

        assert rest("GET", f"v1/{tag['version']}")["name"] == tag["version"]
        assert rest("GET", f"v1/{REPOSITORY}")["format"] == "DOCKER"


def test_project_is_read(reader):
    """A project has a number, which is always the same."""
    project = reader("GET", "v1/projects/acme")

    assert (project["projectId"], project["lifecycleState"]) == ("acme", "ACTIVE")
    assert reader("GET", "v3/projects/acme")["name"] == f"projects/{project['projectNumber']}"


def test_regions_of_the_scheduler(shared, reader):
    """Cloud Scheduler lists its regions, over gRPC and over REST; it does not serve those of Cloud Run only."""
    client = shared.clients.scheduler
    listed = client.list_locations(locations_pb2.ListLocationsRequest(name="projects/acme")).locations
    over_rest = reader("GET", "v1/projects/acme/locations")["locations"]

    assert [each.location_id for each in listed] == [each["locationId"] for each in over_rest]
    assert client.get_location(locations_pb2.GetLocationRequest(name=PLACE)).location_id == "europe-west4"
    with pytest.raises(exceptions.NotFound):
        client.get_location(locations_pb2.GetLocationRequest(name="projects/acme/locations/us-east5"))


@pytest.mark.parametrize("region", ["us-east5", "europe-southwest1", "australia-southeast2", "mars"])
def test_region_without_scheduler_is_rejected(shared, region):
    """Cloud Scheduler rejects a region that it does not serve."""
    parent = f"projects/acme/locations/{region}"
    message = f"Location '{region}' is not a valid location. Use ListLocations to list valid locations."
    created = scheduler_v1.Job(schedule="* * * * *", http_target={"uri": "http://localhost/"})

    with pytest.raises(exceptions.InvalidArgument, match=message):
        shared.clients.scheduler.create_job(parent=parent, job=created)
    with pytest.raises(exceptions.InvalidArgument, match=message):
        shared.clients.scheduler.list_jobs(parent=parent)


@pytest.mark.parametrize(
    ("host", "version", "region"),
    [
        ("run.googleapis.com", "v1", "us-east5"),
        ("europe-west4-run.googleapis.com", "v1", "us-east5"),
        ("secretmanager.googleapis.com", "v1", "us-east5"),
        ("cloudscheduler.googleapis.com", "v1", "us-west4"),
        ("cloudtasks.googleapis.com", "v2", "us-west4"),
        ("logging.googleapis.com", "v2", "global"),
    ],
)
def test_each_service_has_locations(shared, host, version, region):
    """The host of a request, or the version of its API, names the service whose locations are returned."""
    get = partial(requests.get, proxies={"http": shared.http}, timeout=10)
    listed = get(f"http://{host}/{version}/projects/acme/locations").json()["locations"]
    one = get(f"http://{host}/{version}/projects/acme/locations/{region}").json()
    missing = get(f"http://{host}/{version}/projects/acme/locations/mars")

    assert one in listed
    assert set(one) == {"name", "locationId", "labels"}
    assert one["locationId"] == region
    assert missing.status_code == 404


@pytest.mark.parametrize(
    ("verb", "path"),
    [
        ("GET", f"v2/{PLACE}/jobs/app/executions/app-1/app-1:exportStatus"),
        ("GET", f"v2/{PLACE}/services/web/revisions/web-1/web-1:exportStatus"),
        ("POST", f"v2/{PLACE}/jobs:exportImage"),
        ("GET", f"v2/{PLACE}/jobs:exportImageMetadata"),
        ("GET", f"v2/{PLACE}/jobs:exportMetadata"),
        ("GET", f"v2/{PLACE}:exportProjectMetadata"),
        ("POST", f"v2/{PLACE}:uploadSource"),
        ("POST", f"v2/{PLACE}/builds:submit"),
        ("GET", f"v2/{PLACE}/instances"),
        ("DELETE", f"v2/{PLACE}/services/web/revisions/web-1"),
        ("GET", f"v1/{PLACE}/cmekConfig"),
        ("POST", "v1/projects/acme/secrets/token:rotateSecret"),
        ("GET", "v2/projects/acme/sinks"),
        ("GET", "apis/domains.cloudrun.com/v1/namespaces/acme/domainmappings"),
        ("GET", "apis/run.googleapis.com/v1/namespaces/acme/instances"),
        ("POST", "apis/run.googleapis.com/v1/namespaces/acme/instances/one:start"),
    ],
)
def test_method_that_is_not_served(reader, verb, path):
    """A method that the emulator lacks is answered with UNIMPLEMENTED and a sentence."""
    error = reader.error(verb, path)

    assert (error["code"], error["status"]) == (501, "UNIMPLEMENTED")
    assert error["message"] == f"The emulator does not serve {verb} /{path}."


def test_grpc_method_that_is_not_served(shared):
    """A method that the emulator lacks is answered with UNIMPLEMENTED and a sentence over gRPC too."""
    with grpc.insecure_channel(shared.grpc) as channel:
        client = run_v2.BuildsClient(transport=BuildsGrpcTransport(channel=channel))
        with pytest.raises(exceptions.MethodNotImplemented, match=r"does not serve .*Builds/SubmitBuild"):
            client.submit_build({"parent": PLACE})


@pytest.mark.parametrize("path", ["nonsense", "v2", "v2/nonsense", "v2/projects", "apis"])
def test_url_outside_of_the_apis_is_not_found(shared, path):
    """A URL that is not below the resources of an API is not found."""
    response = requests.get(f"{shared.http}/{path}", timeout=10)

    assert response.status_code == 404


@pytest.mark.parametrize("path", ["tokeninfo", "oauth2/v1/tokeninfo", "oauth2/v3/tokeninfo"])
def test_token_info_names_the_account(shared, path):
    """Token info returns the account of the access token in a form or an address, and does not read the header."""
    body = {"email": "app-jobs@acme.iam.gserviceaccount.com"}
    url = f"http://{shared.grpc}"
    token = requests.post(f"{url}/_emulator/token", json=body, timeout=10).json()["access_token"]
    found = requests.post(f"{url}/{path}", data={"access_token": token}, timeout=10)
    by_address = requests.get(f"{url}/{path}", params={"access_token": token}, timeout=10)
    unknown = requests.post(f"{url}/{path}", headers={"Authorization": f"Bearer {token}"}, timeout=10)

    assert found.json()["email"] == by_address.json()["email"] == body["email"]
    assert (unknown.status_code, unknown.json()["error"]) == (400, "invalid_token")


def test_state_keeps_apis_images_and_repositories(tmp_path):
    """With --state, the APIs, images and repositories of a project are kept."""
    with Emulator(state=tmp_path, registry=()) as emulator:
        rest = Rest(emulator)
        rest("POST", f"{APIS}/secretmanager.googleapis.com:disable")
        rest("POST", f"v1/{PLACE}/repositories?repositoryId=new", format="DOCKER")
        emulator.images.push(f"{REGISTRY}/app:3")
    with Emulator(state=tmp_path, registry=()) as emulator:
        rest = Rest(emulator)

        assert rest("GET", f"{APIS}/secretmanager.googleapis.com")["state"] == "DISABLED"
        assert "error" not in rest("GET", f"v1/{PLACE}/repositories/new")
        assert emulator.images.exists(f"{REGISTRY}/app:3")


def test_faults_apply_to_plain_methods(emulator, rest):
    """Faults can be planned for services without a gRPC client."""
    emulator.faults.fail("ServiceUsage.ListServices")

    assert rest.error("GET", APIS)["status"] == "UNAVAILABLE"
    assert "services" in rest("GET", APIS)
    assert emulator.calls["ServiceUsage.ListServices"] == 2


@pytest.mark.parametrize(
    ("verb", "path", "body"),
    [
        ("GET", f"{APIS}?pageSize=x", {}),
        ("GET", f"{APIS}?pageSize=1&pageSize=2", {}),
        ("GET", f"{APIS}?filter=x&filter=y", {}),
        ("POST", f"{APIS}:batchEnable", {"serviceIds": [1]}),
        ("POST", ACCOUNTS, {"accountId": "runtime", "serviceAccount": 1}),
        ("POST", ACCOUNTS, {"accountId": ["x"]}),
        ("POST", f"v1/{PLACE}/repositories", {}),
        ("POST", "v1/projects/acme:setIamPolicy", {"policy": 1}),
    ],
)
def test_malformed_request_is_rejected(reader, verb, path, body):
    """A request with a value of the wrong type is rejected with INVALID_ARGUMENT."""
    assert reader.error(verb, path, **body)["status"] == "INVALID_ARGUMENT"
