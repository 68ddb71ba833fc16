"""Read the facts about a project: each once, when a check first needs it.

A fact that cannot be read raises the same `CloudRunJobsError` each time. A resource that does not exist is None.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import wraps
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, TypeVar, cast
from urllib.parse import quote

from cloudrun_jobs import locks
from cloudrun_jobs.backends.cloudrun.errors import ApiMethod
from cloudrun_jobs.backends.cloudrun.rest import RestClient
from cloudrun_jobs.command import CloudRunJobs
from cloudrun_jobs.deploy import drift
from cloudrun_jobs.deploy import jobs as job_declarations
from cloudrun_jobs.deploy import schedules as schedule_declarations
from cloudrun_jobs.deploy.cloudrun.jobs import Jobs
from cloudrun_jobs.deploy.cloudrun.schedules import Schedules
from cloudrun_jobs.deploy.plan import Existing
from cloudrun_jobs.doctor import roles
from cloudrun_jobs.doctor.commands import COMPUTE_DOMAIN, DEFAULT_ACCOUNT, member, project_of
from cloudrun_jobs.exceptions import CloudRunJobsError, InvalidJob, ServiceError
from cloudrun_jobs.runs import health
from cloudrun_jobs.spec import JobSpec

if TYPE_CHECKING:
    from cloudrun_jobs.backends.cloudrun import CloudRunBackend

Value = TypeVar("Value")

PAGE_SIZE = 500
# us-docker.pkg.dev/acme/repository/some/image:tag@sha256:0123
IMAGE_NAME = re.compile(
    r"(?P<location>[a-z0-9-]+)-docker\.pkg\.dev/(?P<project>[^/]+)/(?P<repository>[^/]+)/(?P<package>[^:@]+)"
    r"(:(?P<tag>[^@]+))?(@(?P<digest>sha256:[0-9a-f]+))?"
)
REGIONAL_URL = re.compile(r"https://[^/]+\.(?P<region>[a-z]+-[a-z]+\d+)\.run\.app")
POLICY_VERSION = 3  # Others hide the roles of bindings with conditions.


def repository_of(image: re.Match[str]) -> str:
    return f"projects/{image['project']}/locations/{image['location']}/repositories/{image['repository']}"


def fact(read: Callable[..., Value]) -> Callable[..., Value]:
    """Cache the result of a method, or its `CloudRunJobsError`, by its arguments."""

    @wraps(read)
    def reading(self: Facts, *args: Any) -> Value:
        key = (read.__name__, *args)
        if key not in self._known:
            try:
                self._known[key] = (read(self, *args), None)
            except CloudRunJobsError as error:
                self._known[key] = (None, error)
        value, failure = self._known[key]
        if failure is not None:
            raise failure
        return cast("Value", value)

    return reading


class Facts:
    """The selected jobs, and what Google's services, the database and the lock server say about them."""

    def __init__(
        self,
        backend: CloudRunBackend,
        jobs: Iterable[CloudRunJobs],
        *,
        unreadable: Mapping[str, BaseException] | None = None,
        commands: Sequence[str] | None = None,
    ) -> None:
        self.backend = backend
        self.jobs = list(jobs)
        self.unreadable = unreadable or {}  # The exceptions of commands that cannot be imported.
        self._selected = commands  # None: all.
        self.project, self.region = backend.settings.project, backend.settings.region
        self.scheduler_region = backend.scheduler_region or self.region
        self._known: dict[Any, tuple[Any, CloudRunJobsError | None]] = {}
        self._rest = RestClient(backend.server, timeout=backend.rpc_timeout)

    # What the code declares.

    @fact
    def specs(self) -> list[JobSpec]:
        """Return the declarations, except for invalid ones, which the system checks report."""
        found = []
        for job in self.jobs:
            with suppress(InvalidJob):
                found.append(job.spec)
        return found

    def commands(self) -> set[str]:
        """Return the names of the jobs, which the sync commands accept."""
        return {job.command_name for job in self.jobs}

    def is_selected(self, command: str) -> bool:
        return self._selected is None or command in self._selected

    def deployed(self) -> list[JobSpec]:
        """Return the jobs that are Cloud Run Jobs."""
        return [spec for spec in self.specs() if job_declarations.is_deployed(spec, self.backend)]

    def scheduled(self) -> list[JobSpec]:
        """Return the jobs with schedules."""
        return [
            spec
            for spec in self.specs()
            if spec.schedules and schedule_declarations.is_deployed(spec, self.backend)
        ]

    def in_service(self) -> list[JobSpec]:
        """Return the jobs with schedules that call the web service."""
        return [spec for spec in self.scheduled() if spec.target == "service"]

    def scheduler_account(self, spec: JobSpec) -> str | None:
        """Return the account with which Cloud Scheduler starts the job; None if it is not set."""
        return self.backend.scheduler_service_account or self.backend.service_account or spec.service_account

    # Cloud Run and Cloud Scheduler.

    @fact
    def existing_jobs(self) -> dict[str, Existing]:
        return {item.id: item for item in Jobs(self.backend).list()}

    @fact
    def existing_schedules(self) -> dict[str, Existing]:
        return {item.id: item for item in Schedules(self.backend).list()}

    @fact
    def usual_image(self) -> str:
        """Return the image that most jobs of the environment have; of several, that of the job changed last.

        Jobs whose class names an image do not count.
        """
        environment = self.backend.settings.environment
        own = {spec.name for spec in self.deployed() if spec.image is not None}
        found = [
            (str(item.fields.get("image", "")), item.message.update_time)
            for item in self.existing_jobs().values()
            if item.id not in own and item.ownership is not None and item.ownership.environment == environment
        ]
        counts = Counter(image for image, _ in found)
        found = [item for item in found if not self.lacks_image(item[0])] or found
        return max(found, key=lambda item: (counts[item[0]], item[1]), default=("", None))[0]

    @fact
    def schedules_elsewhere(self) -> list[Existing]:
        """Return the Scheduler jobs of the jobs' region, if the settings name another region for schedules."""
        regions = {self.region, self.scheduler_region}
        if len(regions) == 1 or not regions <= self.scheduler_regions():
            return []
        store = Schedules(self.backend)
        store.parent = self.backend.parent
        return store.list()

    @fact
    def job_drift(self) -> drift.Drift:
        existing = list(self.existing_jobs().values())
        return drift.job_drift(
            self.jobs, existing, self.backend, commands=self._selected, unreadable=self.unreadable
        )

    @fact
    def schedule_drift(self) -> drift.Drift:
        existing = list(self.existing_schedules().values())
        return drift.schedule_drift(
            self.jobs, existing, self.backend, commands=self._selected, unreadable=self.unreadable
        )

    @fact
    def job_account(self, spec: JobSpec) -> str:
        """Return the service account of the job."""
        found = None
        with suppress(ServiceError):  # The declared account is still known.
            existing = self.existing_jobs().get(spec.name)
            found = existing.fields.get("service_account") if existing else None
        declared = spec.service_account or self.backend.service_account
        return found or declared or DEFAULT_ACCOUNT.format(self.project_number())

    @fact
    def service(self) -> Mapping[str, Any] | None:
        """Return the web service whose URL is in the settings."""
        url = (self.backend.service_url or "").rstrip("/")
        found = REGIONAL_URL.fullmatch(url)
        for service in self._services(found["region"] if found else self.region):
            if url in {service.get("uri"), *service.get("urls", ()), *service.get("customAudiences", ())}:
                return service
        return None

    @fact
    def _services(self, region: str) -> list[Mapping[str, Any]]:
        path = f"v2/projects/{self.project}/locations/{region}/services"
        return list(self._pages("services", "run", path, "run.services.list", "roles/run.viewer"))

    @fact
    def scheduler_regions(self) -> set[str]:
        """Return the regions that Cloud Scheduler serves."""
        path, role = f"v1/projects/{self.project}/locations", "roles/cloudscheduler.viewer"
        found = self._pages("locations", "cloudscheduler", path, "cloudscheduler.locations.list", role)
        return {location["locationId"] for location in found}

    # APIs, accounts and policies.

    @fact
    def account(self) -> str | None:
        """Return the account of this process; None if it cannot be determined."""
        return self._rest.account()

    @fact
    def apis(self, names: tuple[str, ...]) -> dict[str, bool]:
        """Return a mapping from the name of each API to True if the project has enabled it."""
        parent = f"projects/{self.project}"
        found = self._read(
            "serviceusage",
            f"v1/{parent}/services:batchGet",
            "serviceusage.services.get",
            "roles/serviceusage.serviceUsageViewer",
            names=[f"{parent}/services/{name}" for name in names],
        )
        states = {
            service["name"].rpartition("/")[2]: service.get("state") for service in found.get("services", ())
        }
        return {name: states.get(name) == "ENABLED" for name in names}

    @fact
    def project_number(self) -> str:
        path = f"v1/projects/{self.project}"
        found = self._read("cloudresourcemanager", path, "resourcemanager.projects.get", "roles/browser")
        return str(found["projectNumber"])

    @fact
    def granted(self, permissions: tuple[str, ...]) -> set[str]:
        """Return those of the permissions that this process has on the project."""
        return self._test("cloudresourcemanager", f"v1/projects/{self.project}", permissions)

    @fact
    def granted_on_job(self, name: str, permissions: tuple[str, ...]) -> set[str]:
        """Return those of the permissions that this process has on the job."""
        return self._test("run", f"v2/{self.backend.parent}/jobs/{name}", permissions)

    @fact
    def may_act_as(self, account: str) -> bool:
        """Return True if this process may attach the service account to jobs and Scheduler jobs."""
        permission = "iam.serviceAccounts.actAs"
        return permission in self._test("iam", self._account_path(account), (permission,))

    @fact
    def service_account(self, account: str) -> Mapping[str, Any] | None:
        path = self._account_path(account)
        return self._get("iam", path, "iam.serviceAccounts.get", "roles/iam.serviceAccountViewer")

    def _account_path(self, account: str) -> str:
        name, _, domain = account.partition("@")
        project = project_of(account, self.project)
        if domain == COMPUTE_DOMAIN:
            number = name.partition("-")[0]
            project = self.project if number == self.project_number() else number
        return f"v1/projects/{project}/serviceAccounts/{account}"

    def account_exists(self, account: str) -> bool:
        return self.service_account(account) is not None

    @fact
    def account_has(self, account: str, permission: str, *resource: str) -> bool:
        """Return True if an account has the permission on the project, or on the resource: its service and path.

        Groups, folders and organizations are not searched, and conditions are assumed to be true.
        """
        holder = member(account)
        policies = [self._project_policy, *([lambda: self._policy(*resource)] if resource else ())]
        return any(
            self._role_grants(role, permission) for read in policies for role in roles.roles_of(read(), holder)
        )

    @fact
    def has_project_role(self, account: str, *sufficient: str) -> bool:
        """Return True if an account has one of the roles on the project."""
        return not {*sufficient}.isdisjoint(roles.roles_of(self._project_policy(), member(account)))

    @fact
    def _project_policy(self) -> Mapping[str, Any]:
        path = f"v1/projects/{self.project}"
        permission, role = "resourcemanager.projects.getIamPolicy", "roles/iam.securityReviewer"
        body = {"options": {"requestedPolicyVersion": POLICY_VERSION}}
        return (
            self._call("cloudresourcemanager", "POST", f"{path}:getIamPolicy", permission, role, body=body) or {}
        )

    @fact
    def _policy(self, service: str, path: str) -> Mapping[str, Any]:
        kind = path.split("/")[-2]
        permission = f"{service}.{kind}.getIamPolicy"
        version = {"options.requestedPolicyVersion": POLICY_VERSION}
        return (
            self._get(service, f"{path}:getIamPolicy", permission, "roles/iam.securityReviewer", **version) or {}
        )

    def _role_grants(self, role: str, permission: str) -> bool:
        return permission in self._custom_role(role) if roles.is_custom(role) else roles.grants(role, permission)

    @fact
    def _custom_role(self, role: str) -> list[str]:
        found = self._get("iam", f"v1/{role}", "iam.roles.get", "roles/iam.roleViewer")
        return list((found or {}).get("includedPermissions", ()))

    # Images and secrets.

    @fact
    def image_exists(self, repository: str, package: str, version: str) -> bool:
        """Return True if Artifact Registry has the image; `version` is "tags/TAG" or "versions/DIGEST"."""
        path = f"v1/{repository}/packages/{quote(package, safe='')}/{version}"
        role = "roles/artifactregistry.reader"
        return self._get("artifactregistry", path, "artifactregistry.tags.get", role) is not None

    def has_image(self, image: str) -> bool:
        """Return True if the image exists, or is one of another registry."""
        found = IMAGE_NAME.fullmatch(image)
        if found is None:
            return True
        version = f"versions/{found['digest']}" if found["digest"] else f"tags/{found['tag'] or 'latest'}"
        return self.image_exists(repository_of(found), found["package"], version)

    def lacks_image(self, image: str) -> bool:
        """Return True if the image does not exist. One that cannot be looked up may exist."""
        with suppress(ServiceError):
            return not self.has_image(image)
        return False

    @fact
    def repository_exists(self, path: str) -> bool:
        role = "roles/artifactregistry.reader"
        return self._get("artifactregistry", f"v1/{path}", "artifactregistry.repositories.get", role) is not None

    @fact
    def secret_exists(self, path: str) -> bool:
        role = "roles/secretmanager.viewer"
        return self._get("secretmanager", f"v1/{path}", "secretmanager.secrets.get", role) is not None

    @fact
    def secret_state(self, path: str, version: str) -> str | None:
        """Return the state of a version: "ENABLED", "DISABLED" or "DESTROYED"; None if it does not exist."""
        path, role = f"v1/{path}/versions/{version}", "roles/secretmanager.viewer"
        found = self._get("secretmanager", path, "secretmanager.versions.get", role)
        return None if found is None else str(found.get("state", ""))

    # The database and the lock server.

    @fact
    def faults(self) -> list[health.Finding]:
        return health.find_faults(self.specs())

    @fact
    def clock_offset(self) -> timedelta | None:
        """Return how far the clock of the lock server is ahead of this machine's; None if there is no server."""
        before = datetime.now(UTC)
        time = locks.current().server_time()
        return None if time is None else time - before - (datetime.now(UTC) - before) / 2

    # Calls.

    def _read(self, service: str, path: str, permission: str, role: str, **query: Any) -> Mapping[str, Any]:
        """Return the response about a resource that every project has."""
        found = self._get(service, path, permission, role, **query)
        if found is None:
            raise ServiceError(f"{path}: not found.", hint=f"Is {self.project} the project's id?")
        return found

    def _pages(self, field: str, *call: str) -> Iterator[Mapping[str, Any]]:
        """Yield the items of all pages of a list."""
        token = ""
        while True:
            page = self._read(*call, pageSize=PAGE_SIZE, pageToken=token)
            yield from page.get(field, ())
            token = page.get("nextPageToken", "")
            if not token:
                return

    def _get(self, service: str, path: str, permission: str, role: str, **query: Any) -> Mapping[str, Any] | None:
        return self._call(service, "GET", path, permission, role, **query)

    def _test(self, service: str, path: str, permissions: tuple[str, ...]) -> set[str]:
        found = self._call(
            service, "POST", f"{path}:testIamPermissions", "", "", body={"permissions": list(permissions)}
        )
        return set((found or {}).get("permissions", ()))

    def _call(
        self, service: str, verb: str, path: str, permission: str, role: str, **options: Any
    ) -> Mapping[str, Any] | None:
        """Return the response; None if the resource does not exist."""
        resource = re.sub(r"^v\d/|:\w+$", "", path)
        method = ApiMethod(permission=permission, role=role)
        try:
            return self._rest.call(service, verb, path, method, resource=resource, **options)
        except ServiceError as error:
            if getattr(error.__cause__, "code", None) == HTTPStatus.NOT_FOUND:
                return None
            raise
