"""The methods of the services of a project, and those that read and write IAM policies."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from google.cloud.location import locations_pb2
from google.iam.v1 import iam_policy_pb2

from cloudrun_jobs.emulator.iam.access import PolicyMethods
from cloudrun_jobs.emulator.project import artifact_registry, locations, resource_manager
from cloudrun_jobs.emulator.service import Method, Route

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from cloudrun_jobs.emulator.iam.access import Iam
    from cloudrun_jobs.emulator.project.artifact_registry import ArtifactRegistry
    from cloudrun_jobs.emulator.project.custom_roles import CustomRoles
    from cloudrun_jobs.emulator.project.service_accounts import ServiceAccounts
    from cloudrun_jobs.emulator.project.service_usage import ServiceUsage

PROJECTS = "google.cloud.resourcemanager.v3.Projects"
IAM = "google.iam.admin.v1.IAM"
SERVICE_USAGE = "google.api.serviceusage.v1.ServiceUsage"
ARTIFACT_REGISTRY = "google.devtools.artifactregistry.v1.ArtifactRegistry"
CONTAINER_ANALYSIS = "grafeas.v1.Grafeas"
PLACE = "projects/*/locations/*"
REPOSITORY = f"{PLACE}/repositories/*"
PACKAGE = f"{REPOSITORY}/packages/*"
LOCATIONS = (
    ("google.cloud.run.v1.RunLocations", "v1", "run.googleapis.com", locations.RUN_REGIONS),
    ("google.cloud.secretmanager.v1.SecretLocations", "v1", "secretmanager.googleapis.com", locations.RUN_REGIONS),
    ("google.cloud.tasks.v2.TaskLocations", "v2", "", locations.SCHEDULER_REGIONS),
    ("google.logging.v2.LogLocations", "v2", "logging.googleapis.com", ("global", *locations.RUN_REGIONS)),
)
REQUESTS: dict[str, Any] = {
    "GetIamPolicy": iam_policy_pb2.GetIamPolicyRequest,
    "SetIamPolicy": iam_policy_pb2.SetIamPolicyRequest,
    "TestIamPermissions": iam_policy_pb2.TestIamPermissionsRequest,
}


def policy_methods(
    service: str, iam: Iam, check_exists: Callable[[str], Any], routes: Callable[[str], Sequence[Route]]
) -> Iterator[Method]:
    """Yield the three methods for the policies of one type of resource."""
    methods = PolicyMethods(iam, check_exists)
    handlers = {"GetIamPolicy": methods.get, "SetIamPolicy": methods.set, "TestIamPermissions": methods.test}
    for rpc, handle in handlers.items():
        yield Method(service, rpc, REQUESTS[rpc], handle, routes(rpc))


def policy_routes(
    resource: str, read: str = "get", versions: Sequence[str] = ("v1",)
) -> Callable[[str], list[Route]]:
    """Return a function from one of the three methods to its HTTP rules. `read` is the verb of GetIamPolicy."""

    def routes(rpc: str) -> list[Route]:
        verb = read if rpc == "GetIamPolicy" else "post"
        suffix = rpc[0].lower() + rpc[1:]
        body = "*" if verb == "post" else ""
        return [Route(verb, f"/{version}/{{resource={resource}}}:{suffix}", body) for version in versions]

    return routes


def methods(
    iam: Iam, accounts: ServiceAccounts, custom_roles: CustomRoles, apis: ServiceUsage, registry: ArtifactRegistry
) -> Iterator[Method]:
    yield from _projects(iam)
    yield from _accounts(iam, accounts)
    yield from _roles(custom_roles)
    yield from _apis(apis)
    yield from _registry(iam, registry)
    yield from _locations()


def _projects(iam: Iam) -> Iterator[Method]:
    routes = policy_routes("projects/*", read="post", versions=("v1", "v3"))
    yield from policy_methods(PROJECTS, iam, resource_manager.check_exists, routes)
    both = [Route("get", "/v1/{name=projects/*}"), Route("get", "/v3/{name=projects/*}")]
    yield Method(PROJECTS, "GetProject", dict, resource_manager.get_project, both)


def _accounts(iam: Iam, accounts: ServiceAccounts) -> Iterator[Method]:
    account = "projects/*/serviceAccounts/*"
    yield from policy_methods(IAM, iam, accounts.existing, policy_routes(account, read="post"))
    yield from _plain(
        IAM,
        ("CreateServiceAccount", accounts.create, "post", "/v1/{name=projects/*}/serviceAccounts"),
        ("ListServiceAccounts", accounts.listed, "get", "/v1/{name=projects/*}/serviceAccounts"),
        ("GetServiceAccount", accounts.get, "get", f"/v1/{{name={account}}}"),
        ("DeleteServiceAccount", accounts.delete, "delete", f"/v1/{{name={account}}}"),
    )


def _roles(roles: CustomRoles) -> Iterator[Method]:
    parent, name = "/v1/{parent=projects/*}/roles", "/v1/{name=projects/*/roles/*}"
    yield from _plain(
        IAM,
        ("CreateRole", roles.create, "post", parent),
        ("ListRoles", roles.listed, "get", parent),
        ("UpdateRole", roles.update, "patch", name),
        ("DeleteRole", roles.delete, "delete", name),
        (
            "QueryTestablePermissions",
            roles.testable_permissions,
            "post",
            "/v1/permissions:queryTestablePermissions",
        ),
    )
    yield Method(IAM, "GetRole", dict, roles.get, [Route("get", name), Route("get", "/v1/{name=roles/*}")])


def _apis(apis: ServiceUsage) -> Iterator[Method]:
    parent, name = "/v1/{parent=projects/*}/services", "/v1/{name=projects/*/services/*}"
    yield from _plain(
        SERVICE_USAGE,
        ("ListServices", apis.list_services, "get", parent),
        ("BatchGetServices", apis.batch_get_services, "get", f"{parent}:batchGet"),
        ("BatchEnableServices", apis.batch_enable_services, "post", f"{parent}:batchEnable"),
        ("GetService", apis.get_service, "get", name),
        ("EnableService", apis.enable_service, "post", f"{name}:enable"),
        ("DisableService", apis.disable_service, "post", f"{name}:disable"),
        ("GetOperation", apis.get_operation, "get", "/v1/{name=operations/*}"),
    )


def _registry(iam: Iam, registry: ArtifactRegistry) -> Iterator[Method]:
    yield from policy_methods(ARTIFACT_REGISTRY, iam, registry.existing, policy_routes(REPOSITORY))
    yield from _plain(
        ARTIFACT_REGISTRY,
        ("CreateRepository", registry.create, "post", f"/v1/{{parent={PLACE}}}/repositories"),
        ("ListRepositories", registry.listed, "get", f"/v1/{{parent={PLACE}}}/repositories"),
        ("GetRepository", registry.get, "get", f"/v1/{{name={REPOSITORY}}}"),
        ("DeleteRepository", registry.delete, "delete", f"/v1/{{name={REPOSITORY}}}"),
        ("GetOperation", registry.get_operation, "get", f"/v1/{{name={PLACE}/operations/*}}"),
        ("ListDockerImages", registry.list_docker_images, "get", f"/v1/{{parent={REPOSITORY}}}/dockerImages"),
        ("GetDockerImage", registry.get_docker_image, "get", f"/v1/{{name={REPOSITORY}/dockerImages/*}}"),
        ("GetPackage", registry.get_package, "get", f"/v1/{{name={PACKAGE}}}"),
        ("ListTags", registry.list_tags, "get", f"/v1/{{parent={PACKAGE}}}/tags"),
        ("GetTag", registry.get_tag, "get", f"/v1/{{name={PACKAGE}/tags/*}}"),
        ("ListVersions", registry.list_versions, "get", f"/v1/{{parent={PACKAGE}}}/versions"),
        ("GetVersion", registry.get_version, "get", f"/v1/{{name={PACKAGE}/versions/*}}"),
    )
    occurrences = "/v1/{parent=projects/*}/occurrences"
    yield from _plain(
        CONTAINER_ANALYSIS, ("ListOccurrences", artifact_registry.no_occurrences, "get", occurrences)
    )


def _locations() -> Iterator[Method]:
    service, name = "google.cloud.location.Locations", f"/v1/{{name={PLACE}}}"
    get, listed = locations.get_scheduler_location, locations.list_scheduler_locations
    yield Method(service, "GetLocation", locations_pb2.GetLocationRequest, get, [Route("get", name)])
    uri = "/v1/{name=projects/*}/locations"
    yield Method(service, "ListLocations", locations_pb2.ListLocationsRequest, listed, [Route("get", uri)])
    # Their gRPC clients call the methods above; over REST, the host and the version tell the services apart.
    for name, version, host, regions in LOCATIONS:
        of_project = Route("get", f"/{version}/{{name=projects/*}}/locations", host=host)
        yield Method(name, "ListLocations", dict, locations.lister(regions), [of_project])
        one = Route("get", f"/{version}/{{name={PLACE}}}", host=host)
        yield Method(name, "GetLocation", dict, locations.getter(regions), [one])


def _plain(service: str, *table: tuple[str, Any, str, str]) -> Iterator[Method]:
    """Yield methods over plain dictionaries; those that write take the body."""
    for rpc, handle, verb, uri in table:
        yield Method(service, rpc, dict, handle, [Route(verb, uri, "*" if verb in ("post", "patch") else "")])
