"""HTTP requests and responses, shared by the HTTP frontends and Cloud Scheduler's deliveries."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlsplit

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class Request:
    verb: str  # In upper case.
    path: str  # As sent, still percent-encoded.
    host: str = ""
    query: tuple[tuple[str, str], ...] = ()
    headers: Mapping[str, str] = field(default_factory=dict)  # Names in lower case.
    body: bytes = b""

    @classmethod
    def from_url(cls, verb: str, url: str, headers: Mapping[str, str], body: bytes) -> Request:
        parts = urlsplit(url)
        query = tuple(parse_qsl(parts.query, keep_blank_values=True))
        lower = {name.lower(): value for name, value in headers.items()}
        return cls(verb, parts.path or "/", parts.netloc or lower.get("host", ""), query, lower, body)

    def parameter(self, name: str, default: str = "") -> str:
        return dict(self.query).get(name, default)


@dataclass(frozen=True, slots=True)
class Response:
    status: int
    body: bytes = b""
    content_type: str = "application/json"
    reason: str | None = None  # The status line's, which many clients show instead of the body.

    @classmethod
    def json(cls, value: Any, status: int = 200, reason: str | None = None) -> Response:
        return cls(status, json.dumps(value).encode(), reason=reason)
