"""Route a request of the v1 API to the handler of its verb and kind."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, ClassVar

from cloudrun_jobs.emulator import json_reader, names
from cloudrun_jobs.emulator.errors import ServiceError, invalid, not_served
from cloudrun_jobs.emulator.web import Request, Response, failure, json_response

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cloudrun_jobs.emulator.engine.core import Engine
    from cloudrun_jobs.emulator.service import Caller, Service

HOST = re.compile(r"(?:(?P<region>[a-z0-9-]+)-)?run\.[a-z.]+(?::\d+)?")
PATH = re.compile(r"(?P<project>[^/]+)/(?P<kind>[a-z]+)(?:/(?P<id>[^/:]+))?(?::(?P<verb>\w+))?")
ANY_ID = "-"
MAX_LIMIT = 2**31 - 1


class V1Frontend:
    """Answers the requests below a path prefix; subclasses have the handlers, by ``VERB kind/ID:verb``."""

    path_prefix: ClassVar[str]
    handlers: ClassVar[Mapping[str, Callable[..., dict[str, Any]]]]

    def __init__(self, service: Service, engine: Engine) -> None:
        self.service = service
        self.engine = engine

    def respond(self, request: Request, caller: Caller, **_: str) -> Response:
        try:
            return json_response(self._call(request, caller))
        except ServiceError as error:
            return failure(error)

    def _call(self, request: Request, caller: Caller) -> dict[str, Any]:
        match = PATH.fullmatch(request.raw_path.removeprefix(self.path_prefix))
        if match is None:
            raise not_served(request.method, request.raw_path)
        location = names.Location(match["project"], _region(request.host))
        call = f"{request.method} {match['kind']}"
        call += ("/ID" if match["id"] else "") + (f":{match['verb']}" if match["verb"] else "")
        handler = self.handlers.get(call)
        if handler is None:
            raise not_served(request.method, request.raw_path)
        if location.region == ANY_ID and call != f"GET {match['kind']}":
            # Only lists are of all regions.
            raise ServiceError("UNIMPLEMENTED", "Operation is not implemented, or supported, or enabled.")
        return handler(self, location, match["id"] or "", request, caller)


def content(request: Request) -> dict[str, Any]:
    value = json_reader.decode(request.get_data() or b"{}")
    if not isinstance(value, dict):
        raise invalid("Invalid JSON payload received. Expected an object.")
    return value


def limit(request: Request) -> int:
    text = request.args.get("limit", "0")
    if not re.fullmatch("[0-9]{1,10}", text) or int(text) > MAX_LIMIT:
        raise invalid(f"Invalid value at 'limit' (TYPE_INT32), {json.dumps(text)}")
    return int(text)


def validate_only(request: Request) -> bool:
    """Return True for a dry run."""
    return request.args.get("dryRun", "") == "all"


def _region(host: str) -> str:
    """Return the region in the host, ``europe-west4-run.googleapis.com``, or ``-`` for all regions."""
    match = HOST.fullmatch(host)
    return (match["region"] if match else None) or ANY_ID
