"""The v1 API of worker pools, which ``gcloud beta run worker-pools`` uses: handlers of the v1 frontend."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from google.cloud import run_v2

from cloudrun_jobs.emulator import names
from cloudrun_jobs.emulator.engine.worker_pools import COLLECTION
from cloudrun_jobs.emulator.frontends.knative import resources, specs
from cloudrun_jobs.emulator.frontends.knative.annotations import (
    annotations_to_v1,
    annotations_to_v2,
    other_annotations,
)
from cloudrun_jobs.emulator.frontends.knative.routing import V1Frontend, content, page, paging, validate_only

if TYPE_CHECKING:
    from cloudrun_jobs.emulator.service import Caller
    from cloudrun_jobs.emulator.web import Request

INSTANCES = "run.googleapis.com/manualInstanceCount"


def _create(
    frontend: V1Frontend, location: names.Location, _: str, request: Request, caller: Caller
) -> dict[str, Any]:
    v1 = content(request)
    create = run_v2.CreateWorkerPoolRequest(
        parent=str(location),
        worker_pool=pool_to_v2(v1),
        worker_pool_id=str(v1.get("metadata", {}).get("name", "")),
        validate_only=validate_only(request),
    )
    return pool_to_v1(_pool_of(frontend.service.call("WorkerPools.CreateWorkerPool", create, caller)))


def _replace(
    frontend: V1Frontend, location: names.Location, short: str, request: Request, caller: Caller
) -> dict[str, Any]:
    pool = pool_to_v2(content(request))
    pool.name = _name(location, short)
    update = run_v2.UpdateWorkerPoolRequest(worker_pool=pool, validate_only=validate_only(request))
    return pool_to_v1(_pool_of(frontend.service.call("WorkerPools.UpdateWorkerPool", update, caller)))


def _get(frontend: V1Frontend, location: names.Location, short: str, _: Request, caller: Caller) -> dict[str, Any]:
    request = run_v2.GetWorkerPoolRequest(name=_name(location, short))
    return pool_to_v1(frontend.service.call("WorkerPools.GetWorkerPool", request, caller))


def _list(
    frontend: V1Frontend, location: names.Location, _: str, request: Request, caller: Caller
) -> dict[str, Any]:
    listing = run_v2.ListWorkerPoolsRequest(parent=str(location), **paging(request))
    found = frontend.service.call("WorkerPools.ListWorkerPools", listing, caller)
    items = [pool_to_v1(pool) for pool in found.worker_pools]
    return page(resources.API_VERSION, "WorkerPoolList", items, found.next_page_token)


def _delete(
    frontend: V1Frontend, location: names.Location, short: str, _: Request, caller: Caller
) -> dict[str, Any]:
    request = run_v2.DeleteWorkerPoolRequest(name=_name(location, short))
    frontend.service.call("WorkerPools.DeleteWorkerPool", request, caller)
    return {"kind": "Status", "status": "Success"}


HANDLERS = {
    "POST workerpools": _create,
    "GET workerpools": _list,
    "GET workerpools/ID": _get,
    "PUT workerpools/ID": _replace,
    "DELETE workerpools/ID": _delete,
}


@specs.readable("worker pool")
def pool_to_v2(v1: dict[str, Any]) -> run_v2.WorkerPool:
    """Translate a v1 worker pool to v2, or raise INVALID_ARGUMENT if it is malformed."""
    metadata, template = v1.get("metadata", {}), v1["spec"]["template"]
    annotations, given = dict(metadata.get("annotations", {})), template.get("metadata", {})
    spec = template["spec"]
    pool = run_v2.WorkerPool(
        client=annotations.pop(specs.CLIENT_NAME, ""),
        client_version=annotations.pop(specs.CLIENT_VERSION, ""),
        labels={key: value for key, value in metadata.get("labels", {}).items() if key != specs.LOCATION_LABEL},
        template=run_v2.WorkerPoolRevisionTemplate(
            revision=given.get("name", ""),
            labels=given.get("labels", {}),
            annotations=other_annotations(given.get("annotations", {})),
            service_account=spec.get("serviceAccountName", ""),
            containers=[specs.container_to_v2(container) for container in spec["containers"]],
            volumes=[specs.volume_to_v2(volume) for volume in spec.get("volumes", [])],
        ),
    )
    annotations_to_v2(given.get("annotations", {}), pool.template)
    if INSTANCES in annotations:
        pool.scaling.manual_instance_count = int(annotations.pop(INSTANCES))
    pool.annotations = {k: v for k, v in annotations.items() if k not in specs.SERVICE_SET_ANNOTATIONS}
    return pool


def pool_to_v1(pool: run_v2.WorkerPool) -> dict[str, Any]:
    v1 = resources.v1_resource("WorkerPool", pool, pool.labels, {})
    v1["metadata"]["annotations"] |= resources.without_empty(
        **{
            specs.CLIENT_NAME: pool.client,
            specs.CLIENT_VERSION: pool.client_version,
            f"{resources.ANNOTATION_PREFIX}creator": pool.creator,
            f"{resources.ANNOTATION_PREFIX}lastModifier": pool.last_modifier,
            INSTANCES: str(pool.scaling.manual_instance_count),
        }
    )
    template = pool.template
    annotations = {**template.annotations, **annotations_to_v1(template)}
    v1["spec"] = {
        "template": {
            "metadata": {"labels": dict(template.labels), "annotations": annotations},
            "spec": {
                "serviceAccountName": template.service_account,
                "containers": [specs.container_to_v1(container) for container in template.containers],
                **specs.volumes_to_v1(template.volumes),
            },
        },
        "instanceSplits": [{"latestRevision": True, "percent": 100}],
    }
    v1["status"] = {
        "observedGeneration": pool.observed_generation,
        "conditions": resources.conditions([pool.terminal_condition]),
        "latestReadyRevisionName": names.short(pool.latest_ready_revision),
        "latestCreatedRevisionName": names.short(pool.latest_created_revision),
        "instanceSplits": [{"latestRevision": True, "percent": 100}],
    }
    return v1


def _name(location: names.Location, short: str) -> str:
    return f"{location}/{COLLECTION}/{short}"


def _pool_of(operation: Any) -> run_v2.WorkerPool:
    pool: run_v2.WorkerPool = run_v2.WorkerPool.deserialize(operation.response.value)
    return pool
