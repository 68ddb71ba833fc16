"""Service Usage: enable, disable and list the APIs of a project, and reject calls of a disabled API."""

from __future__ import annotations

import re
import uuid
from typing import TYPE_CHECKING, Any

from cloudrun_jobs.emulator.config import API_NAME
from cloudrun_jobs.emulator.errors import ServiceError, invalid
from cloudrun_jobs.emulator.iam.permissions import resources_of
from cloudrun_jobs.emulator.names import project_number, project_of
from cloudrun_jobs.emulator.project.paging import page

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from cloudrun_jobs.emulator.project.documents import Documents
    from cloudrun_jobs.emulator.service import Caller, Method

TITLES = {
    "artifactregistry.googleapis.com": "Artifact Registry API",
    "cloudbuild.googleapis.com": "Cloud Build API",
    "cloudresourcemanager.googleapis.com": "Cloud Resource Manager API",
    "cloudscheduler.googleapis.com": "Cloud Scheduler API",
    "cloudtasks.googleapis.com": "Cloud Tasks API",
    "compute.googleapis.com": "Compute Engine API",
    "iam.googleapis.com": "Identity and Access Management (IAM) API",
    "iamcredentials.googleapis.com": "IAM Service Account Credentials API",
    "logging.googleapis.com": "Cloud Logging API",
    "monitoring.googleapis.com": "Cloud Monitoring API",
    "run.googleapis.com": "Cloud Run Admin API",
    "secretmanager.googleapis.com": "Secret Manager API",
    "serviceusage.googleapis.com": "Service Usage API",
    "sqladmin.googleapis.com": "Cloud SQL Admin API",
    "sts.googleapis.com": "Security Token Service API",
    "workflows.googleapis.com": "Workflows API",
}
# By the start of the name of a gRPC service.
API_OF_SERVICE = {
    "google.cloud.run.": "run.googleapis.com",
    "google.longrunning.": "run.googleapis.com",
    "google.cloud.scheduler.": "cloudscheduler.googleapis.com",
    "google.cloud.tasks.": "cloudtasks.googleapis.com",
    "google.cloud.location.": "cloudscheduler.googleapis.com",
    "google.logging.": "logging.googleapis.com",
    "google.cloud.secretmanager.": "secretmanager.googleapis.com",
    "google.cloud.resourcemanager.": "cloudresourcemanager.googleapis.com",
    "google.iam.admin.": "iam.googleapis.com",
    "google.devtools.artifactregistry.": "artifactregistry.googleapis.com",
    "google.api.serviceusage.": "serviceusage.googleapis.com",
}
# gcloud calls these on behalf of a project of Google's, so that they work while the API is disabled.
EXEMPT = ("ServiceUsage.EnableService", "ServiceUsage.BatchEnableServices", "ServiceUsage.GetOperation")
DONE_OPERATION = "operations/noop.DONE_OPERATION"
STATE_FILTER = re.compile(r"state\s*[:=]\s*(ENABLED|DISABLED)", re.IGNORECASE)
MAX_BATCH = 20
MAX_PAGE_SIZE = 200


class ServiceUsage:
    """Every API is enabled, except those that the emulator was started without or that were disabled later."""

    def __init__(self, documents: Documents, disabled: Iterable[str]) -> None:
        self._documents = documents
        self._disabled = sorted(disabled)
        self._operations: dict[str, dict[str, Any]] = {}

    def check(self, method: Method, request: Any) -> None:
        """Raise the error of the service if the API of this method is disabled in the project of the request."""
        api = next((api for prefix, api in API_OF_SERVICE.items() if method.service.startswith(prefix)), None)
        if api is None or method.key in EXEMPT:
            return
        for resource in resources_of(request) or [""]:
            project = project_of(resource)
            if project == "-":  # An account's e-mail address names its project.
                project = resource.rpartition("@")[2].partition(".")[0]
            if not self.is_enabled(project, api):
                raise disabled(api, project)

    def is_enabled(self, project: str, api: str) -> bool:
        return api not in self._disabled_in(project)

    def list_services(self, request: Mapping[str, Any], _: Caller) -> dict[str, Any]:
        project = project_of(request["parent"])
        wanted = STATE_FILTER.fullmatch(request.get("filter", "").strip())
        if request.get("filter") and wanted is None:
            raise invalid(f"Invalid filter {request['filter']!r}: expected 'state:ENABLED' or 'state:DISABLED'.")
        names = sorted({*TITLES, *self._disabled_in(project)})
        found = [self._service(project, name) for name in names]
        if wanted is not None:
            found = [each for each in found if each["state"] == wanted[1].upper()]
        return page("services", found, request, MAX_PAGE_SIZE)

    def get_service(self, request: Mapping[str, Any], _: Caller) -> dict[str, Any]:
        project, api = _split(request["name"])
        return self._service(project, api)

    def batch_get_services(self, request: Mapping[str, Any], _: Caller) -> dict[str, Any]:
        return {"services": [self._service(*_split(name)) for name in request.get("names", [])]}

    def enable_service(self, request: Mapping[str, Any], _: Caller) -> dict[str, Any]:
        project, api = _split(request["name"])
        return self._change(project, [api], enable=True, kind="EnableService")

    def batch_enable_services(self, request: Mapping[str, Any], _: Caller) -> dict[str, Any]:
        project, apis = project_of(request["parent"]), request.get("serviceIds", [])
        if not 0 < len(apis) <= MAX_BATCH:
            raise invalid(f"Invalid service_ids: expected 1 to {MAX_BATCH} services.")
        return self._change(project, [_checked(api) for api in apis], enable=True, kind="BatchEnableServices")

    def disable_service(self, request: Mapping[str, Any], _: Caller) -> dict[str, Any]:
        project, api = _split(request["name"])
        return self._change(project, [api], enable=False, kind="DisableService")

    def get_operation(self, request: Mapping[str, Any], _: Caller) -> dict[str, Any]:
        """Return an operation, which has finished by the time of the first question."""
        name = request["name"]
        if name == DONE_OPERATION:
            return {"name": name, "done": True}
        if name not in self._operations:
            raise ServiceError("NOT_FOUND", f"Operation {name} not found.")
        return self._operations[name]

    def _change(self, project: str, apis: list[str], *, enable: bool, kind: str) -> dict[str, Any]:
        with self._documents.lock:
            before = set(self._disabled_in(project))
            after = before - set(apis) if enable else before | set(apis)
            if after == before:
                return {"name": DONE_OPERATION, "done": True, "response": self._response(project, apis, kind)}
            self._documents.put("apis", project, sorted(after))
            name = f"operations/acat.p2-{project_number(project)}-{uuid.uuid4()}"
            self._operations[name] = {"name": name, "done": True, "response": self._response(project, apis, kind)}
        return {"name": name}

    def _response(self, project: str, apis: list[str], kind: str) -> dict[str, Any]:
        services = [self._service(project, api) for api in apis]
        content = {"services": services} if kind.startswith("Batch") else {"service": services[0]}
        return {"@type": f"type.googleapis.com/google.api.serviceusage.v1.{kind}Response", **content}

    def _service(self, project: str, api: str) -> dict[str, Any]:
        parent = f"projects/{project_number(project)}"
        state = "ENABLED" if self.is_enabled(project, api) else "DISABLED"
        config = {"name": api, "title": title_of(api)}
        return {"name": f"{parent}/services/{api}", "parent": parent, "config": config, "state": state}

    def _disabled_in(self, project: str) -> list[str]:
        disabled: list[str] | None = self._documents.get("apis", project)
        return self._disabled if disabled is None else disabled


def title_of(api: str) -> str:
    return TITLES.get(api) or f"{api.partition('.')[0].capitalize()} API"


def disabled(api: str, project: str) -> ServiceError:
    url = f"https://console.developers.google.com/apis/api/{api}/overview?project={project}"
    message = (
        f"{title_of(api)} has not been used in project {project} before or it is disabled. Enable it by visiting "
        f"{url} then retry. If you enabled this API recently, wait a few minutes for the action to propagate to "
        "our systems and retry."
    )
    metadata = {
        "service": api,
        "serviceTitle": title_of(api),
        "consumer": f"projects/{project}",
        "containerInfo": project,
        "activationUrl": url,
    }
    details: list[dict[str, Any]] = [
        {
            "@type": "type.googleapis.com/google.rpc.ErrorInfo",
            "reason": "SERVICE_DISABLED",
            "domain": "googleapis.com",
            "metadata": metadata,
        },
        {"@type": "type.googleapis.com/google.rpc.LocalizedMessage", "locale": "en-US", "message": message},
        {
            "@type": "type.googleapis.com/google.rpc.Help",
            "links": [{"description": "Google developers console API activation", "url": url}],
        },
    ]
    return ServiceError("PERMISSION_DENIED", message, details)


def _split(name: str) -> tuple[str, str]:
    """Return the project and the API of ``projects/P/services/A``."""
    return project_of(name), _checked(name.rpartition("/")[2])


def _checked(api: str) -> str:
    if not API_NAME.fullmatch(api):
        raise ServiceError("PERMISSION_DENIED", f"Not found or permission denied for service(s): {api}.")
    return api
