"""The OpenAPI schema of the API."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.test import Client
from django.urls import get_resolver, include, path, resolve, reverse
from openapi_spec_validator import OpenAPIV31SpecValidator

from cloudrun_jobs import urls
from cloudrun_jobs.argv.values import loses_double_dash
from cloudrun_jobs.exceptions import InvalidJob
from cloudrun_jobs.http.paths import PATHS, reserved_words
from cloudrun_jobs.http.routes import ROUTES
from tests.http_api.conftest import configured, secret
from tests.jobs.management.commands import echo, everything

EVERYTHING = ("source", "words", "day", "many", "tag", "shop", "dry_run", "wet", "mode", "mail", "size", "level")
NO_NUL = r"^(?!--$)[^\u0000]*$" if loses_double_dash() else r"^[^\u0000]*$"
TEXT = {"anyOf": [{"type": "string", "pattern": NO_NUL}, {"type": "number"}]}
POSITIONAL = {"anyOf": [{"type": "string", "pattern": r"^(?!--$)[^\u0000]*$"}, {"type": "number"}]}
IN_LIST = {"anyOf": [{"type": "string", "pattern": r"^(?!-)[^\u0000]*$"}, {"type": "number", "minimum": 0}]}
INTEGER = {"anyOf": [{"type": "integer"}, {"type": "string", "pattern": "^[+-]?[0-9]{1,4000}$"}]}
NULL = {"type": "null"}

urlpatterns = [path("", include("cloudrun_jobs.urls"))]


@pytest.fixture
def schema(call: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Return the schema that the caller gets."""
    monkeypatch.setattr(everything.Command, "http_options", EVERYTHING, raising=False)
    return lambda **options: call("GET", "schema/", **options).json()


def body(schema: Any, command: str) -> Any:
    operation = schema["paths"][f"/jobs/{command}/"]["post"]
    return operation["requestBody"]["content"]["application/json"]["schema"]


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"HEALTH": "public"},
        {"SESSION": True, "OIDC": {"audience": "https://a", "emails": ["a@b"]}, "RATE": "60/m"},
    ],
    ids=str,
)
def test_schema_is_valid(schema: Callable[..., Any], settings: Any, values: dict[str, Any]) -> None:
    """It is an OpenAPI 3.1 document, whatever is configured."""
    settings.CLOUDRUN_JOBS = configured(**values)

    found = schema()

    assert found["openapi"] == "3.1.0"
    assert list(OpenAPIV31SpecValidator(found).iter_errors()) == []


def test_schema_has_each_url(schema: Callable[..., Any]) -> None:
    """Each route has a path, which is served and described, in the order of the table."""
    found = schema()
    routes = ROUTES.values()
    operations = {f"{method}_{route.name}" for route in routes for method in map(str.lower, route.actions)}
    in_schema = {each["operationId"] for path in found["paths"].values() for each in path.values()}

    assert {name.removesuffix("_in_request").removesuffix("_echo") for name in in_schema} >= operations
    names = [each.name for each in urls.urlpatterns if each.name and not each.name.startswith("dashboard")]
    assert list(ROUTES) == list(PATHS) == names
    for each in found["paths"]:
        assert (
            resolve(f"{found['servers'][0]['url']}{each}", "tests.http_api.urls").route
            != "cloudrun_jobs/<path:path>"
        )


@pytest.mark.parametrize(
    ("urls", "url", "servers"),
    [
        ("tests.http_api.urls", "/cloudrun_jobs/schema/", [{"url": "/cloudrun_jobs"}]),
        ("tests.http_api.test_schema", "/schema/", None),
    ],
)
def test_server_is_the_prefix(http: Client, settings: Any, urls: Any, url: str, servers: Any) -> None:
    """At the root of the host there is none: with "/", clients would request "//jobs/"."""
    settings.ROOT_URLCONF = urls

    assert http.get(url, headers={"x-token": secret("all")}).json().get("servers") == servers


def test_any_accepted_credential_reads_the_schema(call: Callable[..., Any], settings: Any) -> None:
    """A credential is needed, but no scope."""
    token = {**configured()["HTTP"]["TOKENS"][0], "scopes": []}
    settings.CLOUDRUN_JOBS = {"ENVIRONMENT": "test", "HTTP": {"TOKENS": [token]}}

    assert call("GET", "schema/").status_code == 200
    assert call("GET", "schema/", token="").status_code == 401
    assert call("GET", "jobs/").status_code == 403


def test_options_of_a_job_are_those_that_callers_may_set(schema: Callable[..., Any]) -> None:
    """Each has the type that its parser declares, and `null` if that omits the option."""
    found = schema()

    assert body(found, "echo") == {
        "type": "object",
        "properties": {
            "partner": {"anyOf": [*INTEGER["anyOf"], NULL]},
            "note": {"anyOf": [*TEXT["anyOf"], NULL]},
        },
        "additionalProperties": False,
    }
    assert body(found, "everything")["required"] == ["source"]
    assert body(found, "everything")["properties"] == {
        "source": POSITIONAL,
        "words": {"type": "array", "items": POSITIONAL},
        "day": {"anyOf": [{"type": "string", "format": "date"}, NULL]},
        "many": {"anyOf": [{"type": "array", "items": IN_LIST, "minItems": 1}, NULL]},
        "tag": {"anyOf": [{"type": "array", "items": TEXT, "minItems": 1}, NULL]},
        "shop": {"anyOf": [{"type": "array", "items": INTEGER, "minItems": 1}, NULL]},
        "dry_run": {"type": "boolean", "default": False},
        "wet": {"type": "boolean", "default": True},
        "mode": {"enum": ["fast", None]},
        "mail": {"anyOf": [{"type": "boolean"}, NULL]},
        "size": {"anyOf": [{"enum": ["s", "m"]}, NULL]},
        "level": {"type": "integer", "minimum": 0, "maximum": 100, "default": 0},
    }


def test_jobs_that_the_caller_cannot_start_are_not_in_the_schema(
    schema: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It omits jobs of other commands, jobs with a required option that callers may not set, and invalid jobs."""
    assert "/jobs/walk/" not in schema()["paths"]
    assert "/jobs/nightly/" in schema()["paths"]
    assert "/jobs/nightly/" not in schema(token="echo only")["paths"]
    monkeypatch.setattr(echo.Command, "timeout", -1, raising=False)
    with pytest.raises(InvalidJob):
        _ = echo.Command().spec
    assert "/jobs/echo/" not in schema()["paths"]


def test_security_schemes_are_those_of_the_settings(schema: Callable[..., Any], settings: Any) -> None:
    """The schemes are each header of a token, Google's ID tokens, and the session cookie."""
    assert schema()["components"]["securitySchemes"].keys() == {"bearer", "token_x-token", "token_x-ingest-token"}

    oidc = {"audience": "https://a", "emails": ["a@b"]}
    settings.CLOUDRUN_JOBS = configured(SESSION=True, OIDC=oidc, HEALTH="public")
    found = schema()

    schemes = found["components"]["securitySchemes"]
    assert schemes["token_x-token"] == {"type": "apiKey", "in": "header", "name": "x-token"}
    assert schemes["oidc"] == {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}
    assert (schemes["session"]["in"], schemes["session"]["name"]) == ("cookie", "sessionid")
    assert "X-CSRFTOKEN" in schemes["session"]["description"]
    assert found["paths"]["/jobs/"]["get"]["security"] == [{name: []} for name in schemes]
    assert found["paths"]["/health/"]["get"]["security"][-1] == {}
    assert "content" not in found["paths"]["/health/"]["get"]["responses"]["200"]


def test_reserved_words_take_precedence_over_jobs(http: Client) -> None:
    """The URL of the statistics is never that of a run or a job called "stats"."""
    assert resolve(reverse("cloudrun_jobs:stats")).url_name == "stats"
    assert {"stats", "events", "cancel", "rerun"} == reserved_words()


def test_requests_are_not_in_a_transaction(http: Client) -> None:
    """With ATOMIC_REQUESTS a request that waits for a run would not see it end."""
    pattern = get_resolver().resolve("/cloudrun_jobs/jobs/")

    assert "default" in pattern.func._non_atomic_requests
