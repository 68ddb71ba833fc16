"""Credentials, and a client that presents one of them."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256
from typing import Any

import pytest
from django.core.cache import cache
from django.test import Client

from tests.emulator.fixtures import cloudrun_emulator, cloudrun_emulator_options
from tests.jobs.management.commands import echo

__all__ = ["cloudrun_emulator", "cloudrun_emulator_options"]

PREFIX = "/cloudrun_jobs/"
TOKENS = [
    {"name": "all", "header": "x-token", "scopes": ["read", "run", "cancel"]},
    {"name": "reader", "header": "x-token", "scopes": ["read"]},
    {"name": "echo only", "header": "x-ingest-token", "scopes": ["read", "run", "cancel"], "commands": ["echo"]},
    {"name": "walk only", "header": "x-token", "scopes": ["read", "run", "cancel"], "commands": ["walk"]},
    {"name": "expired", "header": "x-token", "scopes": ["read"], "expires": "2026-01-01T00:00:00Z"},
    {"name": "bearer", "header": "Authorization", "scopes": ["read"]},
]


def secret(name: str) -> str:
    return f"the token named {name}"


def configured(**http: Any) -> dict[str, Any]:
    tokens = [{**token, "sha256": sha256(secret(str(token["name"])).encode()).hexdigest()} for token in TOKENS]
    return {"ENVIRONMENT": "test", "HTTP": {"TOKENS": tokens, **http}}


@pytest.fixture
def http(settings: Any, monkeypatch: pytest.MonkeyPatch) -> Client:
    """A client without a credential, of a project that configures the tokens."""
    settings.ROOT_URLCONF = "tests.http_api.urls"
    settings.CLOUDRUN_JOBS = configured()
    monkeypatch.setattr(echo.Command, "http_options", ("partner", "note"), raising=False)
    cache.clear()
    return Client(enforce_csrf_checks=True)


@pytest.fixture
def call(http: Client) -> Callable[..., Any]:
    """Make a request with a token; return the response."""

    def call(method: str, path: str, *, token: str = "all", headers: Any = None, **options: Any) -> Any:
        header = next(str(each["header"]) for each in TOKENS if each["name"] == token) if token else ""
        value = f"Bearer {secret(token)}" if header == "Authorization" else secret(token)
        given = {**({header: value} if token else {}), **(headers or {})}
        options.setdefault("content_type", "application/json")
        return http.generic(method, PREFIX + path, headers=given, **options)

    return call
