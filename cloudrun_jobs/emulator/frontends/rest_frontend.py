"""The REST frontend: the same calls as gRPC, mapped by the clients' own HTTP rules."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from google.protobuf import json_format
from google.protobuf.descriptor import FieldDescriptor

from cloudrun_jobs.emulator.errors import ServiceError, invalid
from cloudrun_jobs.emulator.service import Caller, Method, Service, raw, raw_class
from cloudrun_jobs.emulator.web import Request, Response

if TYPE_CHECKING:
    from collections.abc import Iterator

VARIABLE = re.compile(r"\{([a-z_.]+)=([^}]+)\}")
# Parameters of the transport, not of the method.
COMMON = ("alt", "key", "prettyPrint", "quotaUser", "fields")
UNKNOWN_NAME = re.compile(r'has no field named "([^"]+)"')


@dataclass(frozen=True, slots=True)
class Rule:
    """One compiled HTTP rule."""

    verb: str
    pattern: re.Pattern[str]
    variables: tuple[str, ...]
    body: str
    host: str
    method: Method


class RestFrontend:
    def __init__(self, service: Service) -> None:
        self._service = service
        rules = [rule for method in service.methods.values() for rule in _rules(method)]
        # Rules with a custom verb come first: the other patterns would match ":verb" as part of the id.
        self._rules = sorted(rules, key=lambda rule: (":" not in rule.pattern.pattern, not rule.host))

    def respond(self, request: Request, caller: Caller) -> Response:
        try:
            rule, values = self._find(request)
            is_plain = rule.method.request is dict
            message = _fields(rule, values, request) if is_plain else _message(rule, values, request)
            response = raw(self._service.call(rule.method.key, message, caller))
        except ServiceError as error:
            return Response(error.http_status, error.body())
        if is_plain:
            return Response.json(response)
        numbers = "enum-encoding=int" in request.parameter("$alt")
        return Response(200, json_format.MessageToJson(response, use_integers_for_enums=numbers).encode())

    def _find(self, request: Request) -> tuple[Rule, list[str]]:
        for rule in self._rules:
            match = rule.pattern.fullmatch(request.path)
            if match is not None and rule.verb == request.verb and _serves(rule, request.host):
                return rule, [unquote(value) for value in match.groups()]
        raise ServiceError("NOT_FOUND", f"The requested URL {request.path} was not found on this server.")


def _rules(method: Method) -> Iterator[Rule]:
    for route in method.routes:
        pattern, variables, rest = "", [], route.uri
        while match := VARIABLE.search(rest):
            pattern += re.escape(rest[: match.start()]) + "(" + match[2].replace("*", "[^/]+") + ")"
            variables.append(match[1])
            rest = rest[match.end() :]
        compiled = re.compile(pattern + re.escape(rest))
        yield Rule(route.verb.upper(), compiled, tuple(variables), route.body, route.host, method)


def _serves(rule: Rule, host: str) -> bool:
    return not rule.host or host == rule.host or host.endswith(f"-{rule.host}")


def _fields(rule: Rule, values: list[str], request: Request) -> dict[str, Any]:
    """Return the fields of a request without a message class; the path takes precedence."""
    fields: dict[str, Any] = _body(rule.body, request)
    for name, value in request.query:
        if not name.startswith("$") and name not in COMMON:
            _put(fields, name, value)
    return fields | dict(zip(rule.variables, values, strict=True))


def _message(rule: Rule, values: list[str], request: Request) -> Any:
    """Build the request message from the body, the query and the path; the path takes precedence."""
    message_class = rule.method.request
    pb = raw_class(message_class)()
    fields: dict[str, Any] = _body(rule.body, request)
    for name, value in request.query:
        if not name.startswith("$") and name not in COMMON:
            _put(fields, name, _typed(pb.DESCRIPTOR, name, value))
    try:
        json_format.ParseDict(fields, pb)
    except (json_format.ParseError, RecursionError) as error:
        raise invalid(_explain(error)) from error
    for path, value in zip(rule.variables, values, strict=True):
        _set(pb, path, value)
    return message_class.wrap(pb) if hasattr(message_class, "wrap") else pb


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
