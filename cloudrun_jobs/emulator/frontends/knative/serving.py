"""The v1 API of services and their revisions, which ``gcloud run deploy`` and ``gcloud run services`` use."""

from __future__ import annotations

import hashlib
import json
import re
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from google.cloud import run_v2

from cloudrun_jobs.emulator import names
from cloudrun_jobs.emulator.engine.services import LATEST, REVISION
from cloudrun_jobs.emulator.frontends.knative import resources, specs
from cloudrun_jobs.emulator.frontends.knative.annotations import (
    annotations_to_v1,
    annotations_to_v2,
    other_annotations,
)
from cloudrun_jobs.emulator.frontends.knative.routing import (
    ANY_ID,
    V1Frontend,
    content,
    page,
    paging,
    validate_only,
)

if TYPE_CHECKING:
    from cloudrun_jobs.emulator.service import Caller
    from cloudrun_jobs.emulator.web import Request

API_VERSION = "serving.knative.dev/v1"
SERVICE_LABEL = "serving.knative.dev/service"
CREATOR, LAST_MODIFIER = "serving.knative.dev/creator", "serving.knative.dev/lastModifier"
URLS, OPERATION_ID = "run.googleapis.com/urls", "run.googleapis.com/operation-id"
INGRESS, INGRESS_STATUS = "run.googleapis.com/ingress", "run.googleapis.com/ingress-status"
SERVICE_MIN_SCALE, DESCRIPTION = "run.googleapis.com/minScale", "run.googleapis.com/description"
MIN_SCALE, MAX_SCALE = "autoscaling.knative.dev/minScale", "autoscaling.knative.dev/maxScale"
CPU_THROTTLING, CPU_BOOST = "run.googleapis.com/cpu-throttling", "run.googleapis.com/startup-cpu-boost"
ENVIRONMENT = "run.googleapis.com/execution-environment"
# The service sets these annotations on what it returns, and ignores them in an update.
SERVICE_SET_ANNOTATIONS = (CREATOR, LAST_MODIFIER, URLS, OPERATION_ID, INGRESS_STATUS)
Ingress, Environment = run_v2.IngressTraffic, run_v2.ExecutionEnvironment
INGRESSES = {
    "all": Ingress.INGRESS_TRAFFIC_ALL,
    "internal": Ingress.INGRESS_TRAFFIC_INTERNAL_ONLY,
    "internal-and-cloud-load-balancing": Ingress.INGRESS_TRAFFIC_INTERNAL_LOAD_BALANCER,
    "none": Ingress.INGRESS_TRAFFIC_NONE,
}
ENVIRONMENTS: dict[str, Any] = {
    "gen1": Environment.EXECUTION_ENVIRONMENT_GEN1,
    "gen2": Environment.EXECUTION_ENVIRONMENT_GEN2,
}
# The fields of a service that its configuration and its route have.
PARTS = {
    "Configuration": ("template", "latestReadyRevisionName", "latestCreatedRevisionName", "conditions"),
    "Route": ("traffic", "url", "address", "conditions"),
}
SELECTOR = re.compile(r"([a-z./-]+) *=+ *([A-Za-z0-9._-]+)")


class ServingFrontend(V1Frontend):
    path_prefix = "/apis/serving.knative.dev/v1/namespaces/"

    def _create(self, location: names.Location, _: str, request: Request, caller: Caller) -> dict[str, Any]:
        v1 = content(request)
        create = run_v2.CreateServiceRequest(
            parent=str(location),
            service=service_to_v2(v1),
            service_id=str(v1.get("metadata", {}).get("name", "")),
            validate_only=validate_only(request),
        )
        return service_to_v1(_service_of(self.service.call("Services.CreateService", create, caller)))

    def _replace(self, location: names.Location, short: str, request: Request, caller: Caller) -> dict[str, Any]:
        service = service_to_v2(content(request))
        service.name = _name(location, short)
        update = run_v2.UpdateServiceRequest(service=service, validate_only=validate_only(request))
        return service_to_v1(_service_of(self.service.call("Services.UpdateService", update, caller)))

    def _get(self, location: names.Location, short: str, _: Request, caller: Caller) -> dict[str, Any]:
        request = run_v2.GetServiceRequest(name=_name(location, short))
        return service_to_v1(self.service.call("Services.GetService", request, caller))

    def _list(self, location: names.Location, _: str, request: Request, caller: Caller) -> dict[str, Any]:
        listing = run_v2.ListServicesRequest(parent=str(location), **paging(request))
        found = self.service.call("Services.ListServices", listing, caller)
        items = [service_to_v1(service) for service in found.services]
        return page(API_VERSION, "ServiceList", items, found.next_page_token)

    def _delete(self, location: names.Location, short: str, _: Request, caller: Caller) -> dict[str, Any]:
        request = run_v2.DeleteServiceRequest(name=_name(location, short))
        self.service.call("Services.DeleteService", request, caller)
        return {"kind": "Status", "status": "Success"}

    def _get_revision(self, location: names.Location, short: str, _: Request, caller: Caller) -> dict[str, Any]:
        request = run_v2.GetRevisionRequest(name=f"{_name(location, ANY_ID)}/revisions/{short}")
        return revision_to_v1(self.service.call("Revisions.GetRevision", request, caller))

    def _list_revisions(
        self, location: names.Location, _: str, request: Request, caller: Caller
    ) -> dict[str, Any]:
        selected = dict(SELECTOR.findall(request.parameter("labelSelector")))
        parent = _name(location, selected.pop(SERVICE_LABEL, ANY_ID))
        listing = run_v2.ListRevisionsRequest(parent=parent, **paging(request))
        found = self.service.call("Revisions.ListRevisions", listing, caller)
        revisions = [each for each in found.revisions if selected.items() <= dict(each.labels).items()]
        items = [revision_to_v1(revision) for revision in revisions]
        return page(API_VERSION, "RevisionList", items, found.next_page_token)

    def _get_part(self, location: names.Location, short: str, request: Request, caller: Caller) -> dict[str, Any]:
        """Return the configuration or the route of a service."""
        return _part(self._get(location, short, request, caller), request)

    def _list_parts(self, location: names.Location, _: str, request: Request, caller: Caller) -> dict[str, Any]:
        found = self._list(location, "", request, caller)
        return {**found, "items": [_part(service, request) for service in found["items"]]}

    handlers = {
        "POST services": _create,
        "GET services": _list,
        "GET services/ID": _get,
        "PUT services/ID": _replace,
        "DELETE services/ID": _delete,
        "GET configurations": _list_parts,
        "GET configurations/ID": _get_part,
        "GET routes": _list_parts,
        "GET routes/ID": _get_part,
        "GET revisions": _list_revisions,
        "GET revisions/ID": _get_revision,
    }


@specs.readable("service")
def service_to_v2(v1: dict[str, Any]) -> run_v2.Service:
    """Translate a v1 service to v2, or raise INVALID_ARGUMENT if it is malformed."""
    metadata = v1.get("metadata", {})
    annotations = {k: v for k, v in metadata.get("annotations", {}).items() if k not in SERVICE_SET_ANNOTATIONS}
    service = run_v2.Service(
        client=annotations.pop(specs.CLIENT_NAME, ""),
        client_version=annotations.pop(specs.CLIENT_VERSION, ""),
        description=annotations.pop(DESCRIPTION, ""),
        ingress=INGRESSES[annotations.pop(INGRESS, "all")],
        labels={key: value for key, value in metadata.get("labels", {}).items() if key != specs.LOCATION_LABEL},
        template=_template_to_v2(v1["spec"]["template"]),
        traffic=[_target_to_v2(target) for target in v1["spec"].get("traffic", [])],
    )
    if SERVICE_MIN_SCALE in annotations:
        service.scaling.min_instance_count = int(annotations.pop(SERVICE_MIN_SCALE))
    service.annotations = annotations
    return service


def _template_to_v2(v1: dict[str, Any]) -> run_v2.RevisionTemplate:
    metadata, spec = v1.get("metadata", {}), v1["spec"]
    annotations = dict(metadata.get("annotations", {}))
    template = run_v2.RevisionTemplate(
        revision=metadata.get("name", ""),
        labels=metadata.get("labels", {}),
        scaling=run_v2.RevisionScaling(
            min_instance_count=int(annotations.pop(MIN_SCALE, 0)),
            max_instance_count=int(annotations.pop(MAX_SCALE, 0)),
        ),
        service_account=spec.get("serviceAccountName", ""),
        containers=[specs.container_to_v2(container) for container in spec["containers"]],
        volumes=[specs.volume_to_v2(volume) for volume in spec.get("volumes", [])],
        timeout=timedelta(seconds=int(spec.get("timeoutSeconds", 0))),
        max_instance_request_concurrency=int(spec.get("containerConcurrency", 0)),
    )
    if ENVIRONMENT in annotations:
        template.execution_environment = ENVIRONMENTS[annotations.pop(ENVIRONMENT)]
    for container in template.containers:
        container.resources.cpu_idle = annotations.get(CPU_THROTTLING, "true").lower() == "true"
        container.resources.startup_cpu_boost = annotations.get(CPU_BOOST, "false").lower() == "true"
    annotations_to_v2(annotations, template)
    own = (CPU_THROTTLING, CPU_BOOST)
    template.annotations = {k: v for k, v in other_annotations(annotations).items() if k not in own}
    return template


def _target_to_v2(v1: dict[str, Any]) -> run_v2.TrafficTarget:
    return run_v2.TrafficTarget(
        type_=LATEST if v1.get("latestRevision") else REVISION,
        revision=v1.get("revisionName", ""),
        percent=int(v1.get("percent", 0)),
        tag=v1.get("tag", ""),
    )


def service_to_v1(service: run_v2.Service) -> dict[str, Any]:
    v1 = resources.v1_resource("Service", service, service.labels, {})
    v1["apiVersion"] = API_VERSION
    ingress = next((name for name, value in INGRESSES.items() if value == service.ingress), "all")
    minimum = service.scaling.min_instance_count
    v1["metadata"]["annotations"] |= resources.without_empty(
        **{
            specs.CLIENT_NAME: service.client,
            specs.CLIENT_VERSION: service.client_version,
            DESCRIPTION: service.description,
            CREATOR: service.creator,
            LAST_MODIFIER: service.last_modifier,
            INGRESS: ingress,
            INGRESS_STATUS: ingress,
            SERVICE_MIN_SCALE: str(minimum) if minimum else "",
            URLS: json.dumps(list(service.urls)) if service.urls else "",
        }
    )
    template = service.template
    metadata: dict[str, Any] = {"name": template.revision} if template.revision else {}
    metadata |= {"labels": dict(template.labels), "annotations": _template_annotations(template)}
    v1["spec"] = {
        "template": {"metadata": metadata, "spec": _spec_to_v1(template)},
        "traffic": [_target_to_v1(target) for target in service.traffic],
    }
    v1["status"] = resources.without_empty(
        observedGeneration=service.observed_generation,
        conditions=resources.conditions([service.terminal_condition, *service.conditions]),
        latestReadyRevisionName=names.short(service.latest_ready_revision),
        latestCreatedRevisionName=names.short(service.latest_created_revision),
        traffic=[_status_to_v1(status, service) for status in service.traffic_statuses],
        url=service.uri,
        address={"url": service.uri} if service.uri else {},
    )
    return v1


def _part(service: dict[str, Any], request: Request) -> dict[str, Any]:
    """Return the part of a v1 service that the path names: its configuration, or its route."""
    kind = "Configuration" if "/configurations" in request.path else "Route"
    part = {**service, "kind": kind}
    for field in ("spec", "status"):
        part[field] = {key: value for key, value in service[field].items() if key in PARTS[kind]}
    return part


def revision_to_v1(revision: run_v2.Revision) -> dict[str, Any]:
    v1 = resources.v1_resource("Revision", revision, revision.labels, {SERVICE_LABEL: revision.service})
    v1["apiVersion"] = API_VERSION
    v1["metadata"]["annotations"] = _template_annotations(revision)
    v1["spec"] = _spec_to_v1(revision)
    v1["status"] = resources.without_empty(
        observedGeneration=revision.observed_generation,
        conditions=resources.conditions(revision.conditions),
        imageDigest=_digest(revision.containers[0].image) if revision.containers else "",
    )
    return v1


def _template_annotations(template: run_v2.RevisionTemplate | run_v2.Revision) -> dict[str, str]:
    environment = next((n for n, value in ENVIRONMENTS.items() if value == template.execution_environment), "")
    scaling = template.scaling
    described: dict[str, str] = resources.without_empty(
        **{
            MIN_SCALE: str(scaling.min_instance_count or ""),
            MAX_SCALE: str(scaling.max_instance_count or ""),
            ENVIRONMENT: environment,
            CPU_THROTTLING: "false" if not all(c.resources.cpu_idle for c in template.containers) else "",
            CPU_BOOST: "true" if any(c.resources.startup_cpu_boost for c in template.containers) else "",
        }
    )
    own: dict[str, str] = dict(template.annotations)
    return {**own, **annotations_to_v1(template), **described}


def _spec_to_v1(template: run_v2.RevisionTemplate | run_v2.Revision) -> dict[str, Any]:
    return {
        "containerConcurrency": template.max_instance_request_concurrency,
        "timeoutSeconds": int(template.timeout.total_seconds()) if template.timeout else 0,
        "serviceAccountName": template.service_account,
        "containers": [specs.container_to_v1(container) for container in template.containers],
        **specs.volumes_to_v1(template.volumes),
    }


def _target_to_v1(target: run_v2.TrafficTarget | run_v2.TrafficTargetStatus) -> dict[str, Any]:
    latest = target.type_ == LATEST
    return resources.without_empty(
        latestRevision=latest, revisionName=target.revision, percent=target.percent, tag=target.tag
    )


def _status_to_v1(status: run_v2.TrafficTargetStatus, service: run_v2.Service) -> dict[str, Any]:
    return {**_target_to_v1(status), **({"url": status.uri} if status.uri else {})}


def _digest(image: str) -> str:
    """Return the image by a digest that is made of its name: there is no registry."""
    repository, at, _ = image.partition("@")
    if at:
        return image
    head, colon, tag = repository.rpartition(":")
    untagged = head if colon and "/" not in tag else repository
    return f"{untagged}@sha256:{hashlib.sha256(image.encode()).hexdigest()}"


def _name(location: names.Location, short: str) -> str:
    return f"{location}/services/{short}"


def _service_of(operation: Any) -> run_v2.Service:
    service: run_v2.Service = run_v2.Service.deserialize(operation.metadata.value)
    return service
