"""Read the JSON object in the body of a request."""

from __future__ import annotations

import json
import math
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, NoReturn

from django.core.exceptions import RequestDataTooBig
from django.http import RawPostDataException, UnreadablePostError

from cloudrun_jobs.http.errors import HttpError, bad_request, too_large, unprocessable

if TYPE_CHECKING:
    from django.http import HttpRequest

MAX_BYTES = 64 * 1024
MAX_DEPTH = 32


def read_object(request: HttpRequest, *, any_type: bool = False) -> dict[str, Any]:
    """Return the object in the body; an empty body is an empty object. Raises `HttpError`.

    With `any_type` the content type is ignored: Cloud Scheduler's default is `application/octet-stream`.
    """
    body = read_body(request)
    if not body.strip():
        return {}
    if not any_type and request.content_type != "application/json":
        raise _unsupported(request)
    try:
        value = json.loads(
            body.decode(),
            object_pairs_hook=_unique,
            parse_constant=_reject_constant,
            parse_float=_finite,
        )
    except (ValueError, RecursionError) as error:
        raise bad_request("invalid_json", f"The body is not valid JSON: {error}.") from None
    if not isinstance(value, dict):
        raise bad_request("invalid_json", f"Expected a JSON object, got {type(value).__name__}.")
    if _depth(value) > MAX_DEPTH:
        raise bad_request("invalid_json", f"The body is nested more than {MAX_DEPTH} levels deep.")
    return value


def refuse_body(request: HttpRequest) -> None:
    """Raise `HttpError` unless the body is empty, or an empty object, and no key is given."""
    if unknown := sorted(read_object(request, any_type=True)):
        fields = dict.fromkeys(unknown, "This endpoint takes no options.")
        raise unprocessable("The body has options that this endpoint does not take.", fields=fields)
    refuse_key(request)


def read_flag(request: HttpRequest, name: str) -> bool:
    """Return the boolean of this name in the body, which may have no other field. Raises `HttpError`."""
    given = read_object(request, any_type=True)
    fields = dict.fromkeys(sorted(given.keys() - {name}), f"This endpoint takes only {name!r}.")
    value: Any = given.get(name, False)
    if not isinstance(value, bool):
        fields[name] = f"Expected true or false, got {type(value).__name__}."
    if fields:
        raise unprocessable("The body has options that this endpoint does not take.", fields=fields)
    refuse_key(request)
    return bool(value)


def refuse_key(request: HttpRequest) -> None:
    """Raise `HttpError` for an Idempotency-Key, where it would have no effect."""
    if "idempotency-key" in request.headers:
        raise bad_request("invalid_request", "Idempotency-Key: only `POST jobs/<command>/` takes it.")


def read_body(request: HttpRequest) -> bytes:
    """Return the body. Raises `HttpError` if it is too large or incomplete."""
    refusal = too_large(f"The body is larger than {MAX_BYTES} bytes.")
    try:
        if int(request.headers.get("content-length") or 0) > MAX_BYTES:
            raise refusal
        body = request.body
    except ValueError:
        raise bad_request("invalid_request", "Content-Length: expected a number.") from None
    except RequestDataTooBig:
        raise refusal from None
    except UnreadablePostError:
        raise bad_request("invalid_request", "The connection was closed before the body was complete.") from None
    except RawPostDataException:  # A middleware has parsed a multipart form.
        raise _unsupported(request) from None
    if len(body) > MAX_BYTES:
        raise refusal
    return body


def _unsupported(request: HttpRequest) -> HttpError:
    message = f"Expected the content type application/json, got {request.content_type!r}."
    return HttpError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", message)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"the key {name[:100]!r} is repeated")
        found[name] = value
    return found


def _reject_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not allowed")


def _finite(text: str) -> float:
    if math.isinf(number := float(text)):
        raise ValueError(f"{text} is too large")
    return number


def _depth(value: Any) -> int:
    """Return how deep the value is nested, without recursion."""
    depth, level = 0, [value]
    while level:
        depth += 1
        level = [
            child
            for each in level
            if isinstance(each, dict | list)
            for child in (each.values() if isinstance(each, dict) else each)
        ]
    return depth
