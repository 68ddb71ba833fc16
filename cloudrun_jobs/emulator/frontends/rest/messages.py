"""Read the request of a method from an HTTP request, and write its response as JSON."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from cloudrun_jobs.emulator import json_reader
from cloudrun_jobs.emulator.errors import invalid
from cloudrun_jobs.emulator.frontends.rest import partial
from cloudrun_jobs.emulator.messages import extended_class, plain_request, reduce, to_json
from cloudrun_jobs.emulator.web import Request, Response

if TYPE_CHECKING:
    from collections.abc import Mapping

# Parameters of the transport, not of the method; those of the system begin with "$" as well.
COMMON = (
    *("access_token", "alt", "callback", "fields", "key", "oauth_token", "prettyPrint", "quotaUser"),
    *("uploadType", "upload_protocol"),
)


def read(message_class: Any, request: Request, body: str, path: Mapping[str, str]) -> Any:
    """Return the request message: its fields are in the body, the query and the path, which takes precedence.

    `body` is the field that the body sets, or ``*``. The message of a method without a message class is a dict.
    """
    _check_common(request)
    if message_class is dict:
        return plain_request({**_body(body, request), **_query(request, None), **path})
    pb = extended_class(message_class)()
    json_reader.fill(pb, _body(body, request))
    json_reader.fill(pb, _query(request, pb.DESCRIPTOR))
    for name, value in path.items():
        _set(pb, name, value)
    return reduce(pb, message_class)


def respond(response: Any, request: Request) -> Response:
    fields = _common(request, "fields") or request.headers.get("x-goog-fieldmask", "")
    numbers = "enum-encoding=int" in request.args.get("$alt", "")
    content = response if isinstance(response, dict) else to_json(response, use_integers_for_enums=numbers)
    if fields:
        selection = partial.parse(fields)
        if not isinstance(response, dict):
            partial.check(selection, extended_class(type(response)).DESCRIPTOR, fields)
        content = partial.select(content, selection)
    indent = None if _common(request, "prettyPrint") == "false" else 2
    return Response(json.dumps(content, indent=indent))


def _common(request: Request, name: str) -> str:
    return request.args.get(name, "") or request.args.get(f"${name}", "")


def _check_common(request: Request) -> None:
    """Refuse the parameters whose response would not be the JSON of the method."""
    alt = _common(request, "alt").partition(";")[0]
    if alt not in ("", "json"):
        raise invalid(f"The emulator responds in JSON only, not with alt={alt}.")
    if _common(request, "callback"):
        raise invalid("The emulator does not serve JSONP: every web page could read its responses.")


def _query(request: Request, descriptor: Any) -> dict[str, Any]:
    """Return the fields that the query sets. Without a descriptor, the names are not checked."""
    fields: dict[str, Any] = {}
    for name, value in request.args.items(multi=True):
        if name.startswith("$") or name in COMMON:
            continue
        if (descriptor is not None and not _is_field(descriptor, name)) or not _put(fields, name, value):
            reason = f"Cannot bind query parameter. Field '{name}' could not be found in request message."
            raise json_reader.violation_error([json_reader.unknown_name(name, "", reason)])
    return fields


def _is_field(descriptor: Any, name: str) -> bool:
    for part in name.split("."):
        field = None if descriptor is None else json_reader.find_field(descriptor, part)
        if field is None:
            return False
        descriptor = field.message_type
        if descriptor is not None and json_reader.is_map(field):
            return True
    return True


def _body(field: str, request: Request) -> dict[str, Any]:
    if not field or not request.get_data():
        return {}
    content = json_reader.decode(request.get_data())
    if not isinstance(content, dict):
        reason = "Root element must be a message."
        raise json_reader.violation_error([json_reader.unknown_name("", "", reason)])
    return content if field == "*" else {field: content}


def _put(fields: dict[str, Any], name: str, value: str) -> bool:
    """Set a nested field such as ``job.name``, or add to its list. Return False if it conflicts with another."""
    *parents, last = name.split(".")
    for parent in parents:
        fields = fields.setdefault(parent, {})
        if not isinstance(fields, dict):
            return False
    if isinstance(fields.get(last), dict):
        return False
    fields[last] = _with(fields.get(last), value)
    return True


def _with(earlier: Any, value: str) -> Any:
    if earlier is None:
        return value
    return [*(earlier if isinstance(earlier, list) else [earlier]), value]


def _set(pb: Any, path: str, value: str) -> None:
    *parents, last = path.split(".")
    for parent in parents:
        pb = getattr(pb, parent)
    setattr(pb, last, value)
