"""Create, read, replace, list and delete the resources of v1 by the methods of v2."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from google.cloud import run_v2

from cloudrun_jobs.emulator import names
from cloudrun_jobs.emulator.engine.store import MAX_PAGE_SIZE, paginate
from cloudrun_jobs.emulator.errors import ServiceError
from cloudrun_jobs.emulator.frontends.knative import selectors
from cloudrun_jobs.emulator.frontends.knative.routing import V1Frontend, content, limit, validate_only

if TYPE_CHECKING:
    from cloudrun_jobs.emulator.frontends.knative.resources import Kind
    from cloudrun_jobs.emulator.service import Caller
    from cloudrun_jobs.emulator.web import Request

Handlers = dict[str, Callable[..., dict[str, Any]]]


@dataclass(frozen=True)
class DeclaredKind:
    """A kind of resources that clients declare, and its name in v2's messages."""

    kind: Kind
    field: str
    collection: str

    def name(self, location: names.Location, resource_id: str) -> str:
        return f"{location}/{self.collection}/{resource_id}"

    def request(self, verb: str, **fields: Any) -> Any:
        return getattr(run_v2, f"{verb}{self.kind.name}Request")(**fields)

    def call(self, frontend: V1Frontend, verb: str, request: Any, caller: Caller) -> Any:
        return frontend.service.call(f"{self.kind.name}s.{verb}{self.kind.name}", request, caller)

    def written(self, operation: Any) -> dict[str, Any]:
        # The metadata: an operation that failed because its image is missing has no response.
        return self.kind.write(getattr(run_v2, self.kind.name).deserialize(operation.metadata.value))


def handlers(declared: DeclaredKind) -> Handlers:
    plural = declared.kind.plural
    return {
        f"POST {plural}": partial(_create, declared),
        f"GET {plural}": partial(_list, declared),
        f"GET {plural}/ID": partial(_get, declared),
        f"PUT {plural}/ID": partial(_replace, declared),
        f"DELETE {plural}/ID": partial(_delete, declared),
    }


def _create(
    declared: DeclaredKind,
    frontend: V1Frontend,
    location: names.Location,
    _: str,
    request: Request,
    caller: Caller,
) -> dict[str, Any]:
    v1 = declared.kind.check(content(request), location)
    resource = declared.kind.read(v1, getattr(run_v2, declared.kind.name)())
    fields = {declared.field: resource, f"{declared.field}_id": v1.get("metadata", {}).get("name", "")}
    create = declared.request("Create", parent=str(location), validate_only=validate_only(request), **fields)
    return declared.written(declared.call(frontend, "Create", create, caller))


def _replace(
    declared: DeclaredKind,
    frontend: V1Frontend,
    location: names.Location,
    short: str,
    request: Request,
    caller: Caller,
) -> dict[str, Any]:
    v1, name = declared.kind.check(content(request), location, short), declared.name(location, short)
    version = v1.get("metadata", {}).get("resourceVersion")
    while True:
        stored = _stored(declared, frontend, name)
        resource = declared.kind.read(v1, stored)
        resource.name, resource.etag = name, f'"{version}"' if version else stored.etag
        update = declared.request("Update", validate_only=validate_only(request), **{declared.field: resource})
        try:
            return declared.written(declared.call(frontend, "Update", update, caller))
        except ServiceError as error:
            is_newer = _stored(declared, frontend, name).etag != stored.etag
            if version or error.code != "ABORTED" or not is_newer:
                raise
            # Without a version, the replacement is one of what another request has just stored.


def _stored(declared: DeclaredKind, frontend: V1Frontend, name: str) -> Any:
    """Return a copy of the resource; an empty one, whose update fails, if there is none."""
    store = frontend.engine.store
    with store.changed:
        return getattr(run_v2, declared.kind.name)(getattr(store, f"{declared.field}s").get(name))


def _get(
    declared: DeclaredKind, frontend: V1Frontend, location: names.Location, short: str, _: Request, caller: Caller
) -> dict[str, Any]:
    request = declared.request("Get", name=declared.name(location, short))
    return declared.kind.write(declared.call(frontend, "Get", request, caller))


def _list(
    declared: DeclaredKind,
    frontend: V1Frontend,
    location: names.Location,
    _: str,
    request: Request,
    caller: Caller,
) -> dict[str, Any]:
    return listed(frontend, declared.kind, declared.field, str(location), request, caller)


def _delete(
    declared: DeclaredKind, frontend: V1Frontend, location: names.Location, short: str, _: Request, caller: Caller
) -> dict[str, Any]:
    request = declared.request("Delete", name=declared.name(location, short))
    declared.call(frontend, "Delete", request, caller)
    return {"kind": "Status", "status": "Success"}


def listed(
    frontend: V1Frontend, kind: Kind, field: str, parent: str, request: Request, caller: Caller
) -> dict[str, Any]:
    """Return the resources that the request's label selector matches, or a page of them."""
    selector = selectors.parse(request.args.get("labelSelector", ""))
    size, token = limit(request), request.args.get("continue", "")
    request_class = getattr(run_v2, f"List{kind.name}sRequest")

    def page(page_size: int, page_token: str) -> tuple[list[dict[str, Any]], str]:
        listing = request_class(parent=parent, page_size=page_size, page_token=page_token)
        found = frontend.service.call(f"{kind.name}s.List{kind.name}s", listing, caller)
        return [kind.write(each) for each in getattr(found, f"{field}s")], found.next_page_token

    if not selector.requirements:
        return listing(kind, *page(size, token))
    matching, next_page = [], ""
    while True:
        items, next_page = page(MAX_PAGE_SIZE, next_page)
        matching += [each for each in items if selector.matches(each["metadata"]["labels"])]
        if not next_page:
            return listing(kind, *paginate(matching, size, token))


def listing(kind: Kind, items: list[dict[str, Any]], token: str = "") -> dict[str, Any]:
    # gcloud fails on a list without metadata.
    metadata = {"continue": token} if token else {}
    return {"apiVersion": kind.api_version, "kind": f"{kind.name}List", "metadata": metadata, "items": items}
