"""Error responses of the HTTP API, in one format."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any

from django.http import JsonResponse


class HttpError(Exception):
    """A request is refused: `{"error": {"code", "message", "hint"?, "fields"?}}`.

    `code` is a stable identifier. `fields` are messages by the name of a field of the body or the query.
    """

    def __init__(
        self,
        status: HTTPStatus,
        code: str,
        message: str,
        *,
        hint: str = "",
        fields: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.hint = hint
        self.fields = fields
        self.headers = headers or {}

    def response(self) -> JsonResponse:
        error: dict[str, Any] = {"code": self.code, "message": str(self)}
        if self.hint:
            error["hint"] = self.hint
        if self.fields:
            error["fields"] = dict(self.fields)
        return JsonResponse({"error": error}, status=self.status, headers=dict(self.headers))


def bad_request(code: str, message: str, *, hint: str = "", fields: Mapping[str, str] | None = None) -> HttpError:
    return HttpError(HTTPStatus.BAD_REQUEST, code, message, hint=hint, fields=fields)


def unprocessable(message: str, *, hint: str = "", fields: Mapping[str, str] | None = None) -> HttpError:
    return HttpError(HTTPStatus.UNPROCESSABLE_ENTITY, "invalid_options", message, hint=hint, fields=fields)


def forbidden(message: str) -> HttpError:
    return HttpError(HTTPStatus.FORBIDDEN, "forbidden", message)


def not_found(message: str = "There is nothing at this URL.", *, hint: str = "") -> HttpError:
    return HttpError(HTTPStatus.NOT_FOUND, "not_found", message, hint=hint)


def method_not_allowed(method: str | None, allowed: Iterable[str], *, hint: str = "") -> HttpError:
    methods = list(allowed)
    message, headers = f"Expected the method {' or '.join(methods)}, got {method}.", {"Allow": ", ".join(methods)}
    return HttpError(HTTPStatus.METHOD_NOT_ALLOWED, "method_not_allowed", message, hint=hint, headers=headers)


def too_large(message: str) -> HttpError:
    return HttpError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "too_large", message)


def unavailable(message: str) -> HttpError:
    headers = {"Retry-After": "30"}
    return HttpError(HTTPStatus.SERVICE_UNAVAILABLE, "unavailable", message, headers=headers)
