"""Read the request of a method from an HTTP request, and write its response as JSON."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from google.protobuf import json_format
from google.protobuf.descriptor import FieldDescriptor

from cloudrun_jobs.emulator.errors import invalid
from cloudrun_jobs.emulator.messages import extended_class, reduce, to_json
from cloudrun_jobs.emulator.web import Request, Response

if TYPE_CHECKING:
    from collections.abc import Mapping

# Parameters of the transport, not of the method.
COMMON = ("alt", "key", "prettyPrint", "quotaUser", "fields")
UNKNOWN_NAME = re.compile(r'has no field named "([^"]+)"')


def read(message_class: Any, request: Request, body: str, path: Mapping[str, str]) -> Any:
    """Return the request message: its fields are in the body, the query and the path, which takes precedence.

    `body` is the field that the body sets, or ``*``. The message of a method without a message class is a dict.
    """
    if message_class is dict:
        return {**_with_query(_body(body, request), request, None), **path}
    pb = extended_class(message_class)()
    fields = _with_query(_body(body, request), request, pb.DESCRIPTOR)
    try:
        json_format.ParseDict(fields, pb)
    except (json_format.ParseError, RecursionError) as error:
        raise invalid(_explain(error)) from error
    for name, value in path.items():
        _set(pb, name, value)
    return reduce(pb, message_class)


def respond(response: Any, request: Request) -> Response:
    if isinstance(response, dict):
        return Response.json(response)
    numbers = "enum-encoding=int" in request.parameter("$alt")
    return Response.json(to_json(response, use_integers_for_enums=numbers))


def _with_query(fields: dict[str, Any], request: Request, descriptor: Any) -> dict[str, Any]:
    for name, value in request.query:
        if not name.startswith("$") and name not in COMMON:
            _put(fields, name, value if descriptor is None else _typed(descriptor, name, value))
    return fields


def _body(field: str, request: Request) -> dict[str, Any]:
    if not field or not request.body:
        return {}
    try:
        content = json.loads(request.body)
    except (ValueError, RecursionError) as error:
        raise invalid(f"Invalid JSON payload received. {error}") from error
    if not isinstance(content, dict):
        raise invalid("Invalid JSON payload received. Expected an object.")
    return content if field == "*" else {field: content}


def _put(fields: dict[str, Any], name: str, value: Any) -> None:
    """Set a nested field such as ``job.name``; a repeated parameter becomes a list."""
    *parents, last = name.split(".")
    for parent in parents:
        fields = fields.setdefault(parent, {})
    if last in fields and isinstance(value, str):
        earlier = fields[last]
        value = [*(earlier if isinstance(earlier, list) else [earlier]), value]
    fields[last] = value


def _typed(descriptor: Any, name: str, value: str) -> Any:
    """Convert the text of a boolean field to a boolean, as JSON requires. Other values stay strings."""
    for part in name.split("."):
        field = descriptor.fields_by_camelcase_name.get(part) or descriptor.fields_by_name.get(part)
        if field is None:
            return value
        descriptor = field.message_type
    if field.type == FieldDescriptor.TYPE_BOOL and value.lower() in ("true", "false"):
        return value.lower() == "true"
    return value


def _set(pb: Any, path: str, value: str) -> None:
    *parents, last = path.split(".")
    for parent in parents:
        pb = getattr(pb, parent)
    setattr(pb, last, value)


def _explain(error: Exception) -> str:
    unknown = UNKNOWN_NAME.search(str(error))
    if unknown is not None:
        return f'Invalid JSON payload received. Unknown name "{unknown[1]}": Cannot find field.'
    return f"Invalid JSON payload received. {error}"
