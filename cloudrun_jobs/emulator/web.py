"""HTTP requests and responses, shared by the HTTP frontends and the deliveries of tasks and schedules."""

from __future__ import annotations

import json
from functools import cached_property
from io import BytesIO
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_to_bytes, urlsplit

import werkzeug

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cloudrun_jobs.emulator.errors import ServiceError


class Request(werkzeug.Request):
    """Werkzeug's request, with the path as it was sent."""

    @cached_property
    def raw_path(self) -> str:
        """The path, still percent-encoded."""
        return urlsplit(self.environ["REQUEST_URI"]).path or "/"

    @classmethod
    def from_url(cls, method: str, url: str, headers: Mapping[str, str], body: bytes) -> Request:
        parts = urlsplit(url)
        sent = {"Host": parts.netloc, **headers}
        environ = {f"HTTP_{name.upper().replace('-', '_')}": value for name, value in sent.items()}
        environ["CONTENT_TYPE"] = environ.get("HTTP_CONTENT_TYPE", "")
        return cls(
            environ
            | {
                "REQUEST_METHOD": method,
                "REQUEST_URI": url,
                "PATH_INFO": unquote_to_bytes(parts.path).decode("latin-1"),
                "QUERY_STRING": parts.query,
                "wsgi.url_scheme": parts.scheme,
                "wsgi.input": BytesIO(body),
                "CONTENT_LENGTH": str(len(body)),
            }
        )


class Response(werkzeug.Response):
    """Werkzeug's response, of JSON by default."""

    default_mimetype = "application/json"
    error: ServiceError | None = None  # Of a call that failed.


def json_response(value: Any, status: int = 200) -> Response:
    return Response(json.dumps(value), status)


def failure(error: ServiceError) -> Response:
    """Return the response of a call that failed."""
    response = Response(error.body(), error.http_status)
    response.error = error
    return response


def http_failure(status: int, message: str) -> Response:
    """Return the response of a request that is not a call."""
    return json_response({"error": {"code": status, "message": message}}, status)
