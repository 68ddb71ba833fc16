"""Build the OpenAPI 3.1 schema of the API from its route table."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.db import models

from cloudrun_jobs import argv
from cloudrun_jobs.http.authentication import Caller
from cloudrun_jobs.http.credentials import TRIGGER, Credentials
from cloudrun_jobs.http.options import is_required, option_schema
from cloudrun_jobs.http.query import Parameter
from cloudrun_jobs.http.route import Action, Route
from cloudrun_jobs.models import JobRun, Status
from cloudrun_jobs.registry import find_jobs
from cloudrun_jobs.runs.data import HIDDEN, LISTED

if TYPE_CHECKING:
    from cloudrun_jobs.command import CloudRunJobs

Schema = dict[str, Any]

COMMON_ERRORS = (400, 401, 403, 429, 503)
# The responses that contain a run's id, and the operations that take it.
LINKED = ("Queued", "Accepted", "Triggered")
RUN_OPERATIONS = ("get_run", "post_cancel", "post_rerun")

NULL: Schema = {"type": "null"}
TIME: Schema = {"type": "string", "format": "date-time"}
TIME_OR_NULL: Schema = {"type": ["string", "null"], "format": "date-time"}
SECONDS: Schema = {"type": ["number", "null"], "minimum": 0}
RUN_ID: Schema = {"type": "string", "format": "uuid"}

FIELD_TYPES: tuple[tuple[type[models.Field[Any, Any]], Schema], ...] = (
    (models.UUIDField, RUN_ID),
    (models.DateTimeField, TIME),
    (models.BooleanField, {"type": "boolean"}),
    (models.IntegerField, {"type": "integer"}),
    (models.CharField, {"type": "string"}),
    (models.TextField, {"type": "string"}),
)


def document(routes: Sequence[Route], configured: Credentials, caller: Caller, prefix: str) -> Schema:
    """Return the schema, with the jobs that the caller may use; `prefix` is the path that the URLs begin with."""
    schemes = dict(_security_schemes(configured))
    paths: dict[str, Schema] = {}
    for route in routes:
        for method, action in route.actions.items():
            for path, operation in _operations(route, method, action, caller):
                security: list[Schema] = [{name: []} for name in schemes]
                if action.is_open(configured):
                    security.append({})
                    for status in map(str, action.responses):  # Without a credential there is no body.
                        operation["responses"][status].pop("content")
                paths.setdefault(path, {})[method.lower()] = {**operation, "security": security}
    return {
        "openapi": "3.1.0",
        "info": {"title": "Cloud Run jobs", "version": "1"},
        # By default, paths begin at the root of the host. "/" would make them begin with "//".
        **({"servers": [{"url": prefix}]} if prefix else {}),
        "paths": paths,
        "components": {"schemas": _schemas(), "responses": _error_responses(routes), "securitySchemes": schemes},
    }


def _operations(route: Route, method: str, action: Action, caller: Caller) -> Iterator[tuple[str, Schema]]:
    """Yield the operation of the action, or one for each command, each with its path."""
    path = "/" + re.sub(r"<(\w+:)?(\w+)>", r"{\2}", route.path)
    operation: Schema = {
        "operationId": f"{method.lower()}_{route.name}",
        "summary": action.summary,
        "description": _scope_text(action.scope),
        "parameters": list(_parameters(route, action)),
        "responses": _responses(action),
    }
    if action.body is not None:
        content = {"application/json": {"schema": dict(action.body)}}
        operation["requestBody"] = {"required": False, "content": content}
    if action.starts is None:
        yield path, operation
        return
    parameter = next(iter(re.findall(r"\{(\w+)\}", path)))
    own = [each for each in operation["parameters"] if each["in"] != "path"]
    for command, job in find_jobs().jobs.items():
        if caller.may_use(command) and (body := _body(job, action)):
            yield (
                path.replace(f"{{{parameter}}}", command),
                {
                    **operation,
                    "operationId": f"{operation['operationId']}_{command}",
                    "summary": f"{action.summary}: {command}",
                    "description": f"{job.help} {operation['description']}".strip(),
                    "parameters": own,
                    "requestBody": body,
                },
            )


def _scope_text(scope: str | None) -> str:
    if scope is None:
        return "Any accepted credential."
    return "Scope: `run`, or an accepted ID token." if scope == TRIGGER else f"Scope: `{scope}`."


def _parameters(route: Route, action: Action) -> Iterator[Schema]:
    for name, description in route.parameters.items():
        schema = {"type": "string", "minLength": 1, "pattern": "^[^/]*$"}
        yield {"name": name, "in": "path", "required": True, "description": description, "schema": schema}
    yield from (_parameter(name, "query", parameter) for name, parameter in action.query.items())
    yield from (_parameter(name, "header", parameter) for name, parameter in action.headers.items())


def _parameter(name: str, place: str, parameter: Parameter) -> Schema:
    return {"name": name, "in": place, "description": parameter.description, "schema": dict(parameter.schema)}


def _responses(action: Action) -> Schema:
    """Return the responses, errors included. A status of both kinds has either body."""
    own = {
        status: _response(status, [name, *(["Error"] if status in COMMON_ERRORS else [])])
        for status, name in action.responses.items()
    }
    others = {*COMMON_ERRORS, *action.errors} - own.keys()
    errors = {status: {"$ref": f"#/components/responses/Error{status}"} for status in others}
    return {str(status): response for status, response in sorted({**own, **errors}.items())}


def _response(status: int, names: Sequence[str]) -> Schema:
    described: Schema = {"description": HTTPStatus(status).phrase}
    if status == HTTPStatus.NO_CONTENT:
        return described
    references = [{"$ref": f"#/components/schemas/{name}"} for name in names]
    media_type = "text/event-stream" if names[0] == "Events" else "application/json"
    schema = references[0] if len(references) == 1 else {"anyOf": references}
    described["content"] = {media_type: {"schema": schema}}
    if names[0] in LINKED:
        parameters = {"name": "$response.body#/job_id"}
        described["links"] = {name: {"operationId": name, "parameters": parameters} for name in RUN_OPERATIONS}
    return described


def _body(job: CloudRunJobs, action: Action) -> Schema | None:
    """Return the request body, the options that callers may set; None if they cannot start the job."""
    try:
        if action.starts is None or not action.starts(job):
            return None
        allowed, parser = job.spec.http_options, argv.parser_of(job)
    except Exception:  # noqa: BLE001  (the system checks report it; the parser is the command's own code)
        return None
    if any(is_required(each) and each.dest not in allowed for each in parser._actions):
        return None
    arguments = {name: [each for each in parser._actions if each.dest == name] for name in allowed}
    options = {name: option_schema(found) for name, found in arguments.items() if found}
    if action.scope == TRIGGER and hasattr(job, "test_mode"):
        options["test_mode"] = {"type": "boolean"}
    schema: Schema = {"type": "object", "properties": options, "additionalProperties": False}
    if required := [name for name, found in arguments.items() if any(map(is_required, found))]:
        schema["required"] = required
    return {"required": bool(required), "content": {"application/json": {"schema": schema}}}


def _security_schemes(configured: Credentials) -> Iterator[tuple[str, Schema]]:
    for header in sorted({token.header for token in configured.tokens}):
        if header == "authorization":
            yield "bearer", {"type": "http", "scheme": "bearer"}
        else:
            yield f"token_{header}", {"type": "apiKey", "in": "header", "name": header}
    if configured.oidc:
        yield "oidc", {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}
    if configured.session:
        header = settings.CSRF_HEADER_NAME.removeprefix("HTTP_").replace("_", "-")
        description = f"Unsafe methods also need the header {header}."
        name = settings.SESSION_COOKIE_NAME
        yield "session", {"type": "apiKey", "in": "cookie", "name": name, "description": description}


def _error_responses(routes: Sequence[Route]) -> Schema:
    own = {status for route in routes for action in route.actions.values() for status in action.errors}
    return {f"Error{status}": _response(status, ["Error"]) for status in sorted({*COMMON_ERRORS, *own})}


def _schemas() -> dict[str, Schema]:
    """Return the schemas of the responses."""
    fields = {
        field.attname: _field(field) for field in JobRun._meta.concrete_fields if field.attname not in HIDDEN
    }
    progress = _object(
        {"done": {"type": "integer"}, "total": {"type": ["integer", "null"]}, "text": {"type": "string"}}
    )
    return {
        "Run": _object({**fields, "progress": {"anyOf": [progress, NULL]}, **_failures()}),
        "ListedRun": _object({name: fields[name] for name in LISTED}),
        "RunPage": _object(
            {
                "runs": {"type": "array", "items": {"$ref": "#/components/schemas/ListedRun"}},
                "next": {"type": ["string", "null"]},
            }
        ),
        "Queued": _object({"job_id": RUN_ID, "status": {"const": "queued"}, "url": {"type": "string"}}),
        "Accepted": _object({"job_id": RUN_ID, "status": _choices(Status), "url": {"type": "string"}}),
        "StatsByCommand": {
            "type": "object",
            "additionalProperties": _object(
                {
                    "counts": {
                        "type": "object",
                        "propertyNames": _choices(Status),
                        "additionalProperties": {"type": "integer", "minimum": 1},
                    },
                    **dict.fromkeys(("last_success", "last_failure"), TIME_OR_NULL),
                    **dict.fromkeys(("p50", "p95"), SECONDS),
                    **dict.fromkeys(("next_due", "overdue_since"), TIME_OR_NULL),
                }
            ),
        },
        "Health": _object({"status": {"enum": ["ok", "unhealthy"]}, "findings": _findings()}),
        "Events": _event(),
        "Triggers": _object({"endpoints": {"type": "array", "items": _endpoint()}}),
        "Triggered": _object(
            {"status": {"const": "queued"}, "job_id": RUN_ID, "duplicate": {"const": True}},
            optional=("duplicate",),
        ),
        "Outcome": _object(
            {
                "status": {"enum": ["success", "skipped", "error"]},
                "result": {},
                "error": {"type": "string"},
                "duplicate": {"const": True},
            },
            optional=("result", "error", "duplicate"),
        ),
        "Error": _object(
            {
                "error": _object(
                    {
                        "code": {"type": "string"},
                        "message": {"type": "string"},
                        "hint": {"type": "string"},
                        "fields": {"type": "object", "additionalProperties": {"type": "string"}},
                    },
                    optional=("hint", "fields"),
                )
            }
        ),
        "Schema": {"type": "object", "required": ["openapi", "info", "paths"]},
    }


def _failures() -> dict[str, Schema]:
    """Return the schemas of the lists of failed tasks and items."""
    error: Schema = {name: {"type": "string"} for name in ("error_class", "error_message")}
    index: Schema = {"type": "integer", "minimum": 0}
    task = _object({"index": index, "status": {"type": "string"}, "reason": {"type": "string"}, **error})
    item = _object({"index": index, "item": {}, **error})
    return {
        f"failed_{name}": _object({"count": index, "first": {"type": "array", "items": each, "maxItems": 20}})
        for name, each in (("tasks", task), ("items", item))
    }


def _event() -> Schema:
    """Return the schema of one event of a stream, as tools expect it; OpenAPI 3.1 itself has none for streams."""
    properties: Schema = {
        "event": {"enum": ["status", "progress", "end"]},
        "id": {"type": "string"},
        "data": {"type": "string", "contentMediaType": "application/json"},
        "retry": {"type": "integer"},
    }
    return _object(properties, optional=properties)


def _endpoint() -> Schema:
    schedule = _object({"cron": {"type": "string"}, "time_zone": {"type": "string"}})
    texts: Schema = {name: {"type": "string"} for name in ("command", "url", "help")}
    options = {"type": "object", "additionalProperties": {"type": "string"}}
    schedules = {"type": "array", "items": schedule}
    return _object(
        {
            **texts,
            "options": options,
            "schedules": schedules,
            "dry_run": {"type": "boolean"},
            "test_mode": {"type": "boolean"},
        }
    )


def _findings() -> Schema:
    texts: Schema = {name: {"type": "string"} for name in ("code", "message", "hint", "command")}
    item = _object({**texts, "since": TIME}, optional=("hint", "command", "since"))
    return {"type": "array", "items": item}


def _object(properties: Mapping[str, Schema], *, optional: Iterable[str] = ()) -> Schema:
    required = [name for name in properties if name not in optional]
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


def _field(field: models.Field[Any, Any]) -> Schema:
    """Return the schema of a column's values."""
    schema: Schema = next((schema for kind, schema in FIELD_TYPES if isinstance(field, kind)), {})
    if choices := [value for value, _ in field.flatchoices]:
        schema = {"type": "string", "enum": choices}
    return {"anyOf": [schema, NULL]} if schema and field.null else schema


def _choices(choices: type[models.TextChoices]) -> Schema:
    return {"type": "string", "enum": list(choices.values)}
