"""Serve a project's own Django Ninja and Django REST framework beside the HTTP API.

`python -m tests.http_api.frameworks`. A program and not a test: both are in an environment of its own.
"""

from __future__ import annotations

import json
import sys
import warnings
from hashlib import sha256
from io import StringIO
from typing import Any

import django
from django.conf import settings

TOKEN = {"name": "all", "header": "x-token", "sha256": sha256(b"the token").hexdigest(), "scopes": ["read", "run"]}

settings.configure(
    SECRET_KEY="only for tests",
    ALLOWED_HOSTS=["testserver"],
    ROOT_URLCONF=__name__,
    INSTALLED_APPS=[
        "django.contrib.auth",
        "django.contrib.contenttypes",
        "django.contrib.sessions",
        "ninja",
        "rest_framework",
        "drf_spectacular",
        "cloudrun_jobs",
        "tests.jobs",
    ],
    MIDDLEWARE=[
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.middleware.common.CommonMiddleware",
        "django.middleware.csrf.CsrfViewMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
    ],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
    # These defaults would reject every request, if they applied to the views of the HTTP API.
    REST_FRAMEWORK={
        "DEFAULT_PERMISSION_CLASSES": ["rest_framework.permissions.IsAdminUser"],
        "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.BrowsableAPIRenderer"],
        "DEFAULT_THROTTLE_CLASSES": ["rest_framework.throttling.AnonRateThrottle"],
        "DEFAULT_THROTTLE_RATES": {"anon": "1/day"},
        "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
    },
    CLOUDRUN_JOBS={"ENVIRONMENT": "test", "HTTP": {"TOKENS": [TOKEN]}},
    USE_TZ=True,
)
django.setup()

from django.core.management import call_command  # noqa: E402
from django.test import Client  # noqa: E402
from django.urls import include, path  # noqa: E402
from drf_spectacular.utils import extend_schema  # noqa: E402
from drf_spectacular.views import SpectacularAPIView  # noqa: E402
from ninja import NinjaAPI, Schema  # noqa: E402
from rest_framework import permissions, renderers, routers, serializers, throttling, viewsets  # noqa: E402
from rest_framework.request import Request  # noqa: E402
from rest_framework.response import Response  # noqa: E402

from cloudrun_jobs.http.views import endpoint, start_run  # noqa: E402
from cloudrun_jobs.models import JobRun  # noqa: E402
from tests.jobs.management.commands.echo import Command  # noqa: E402

Command.http_options = ("partner",)
api = NinjaAPI(title="Ninja's", auth=lambda request: request.headers.get("x-ninja"))


class Partner(Schema):
    partner: int


@api.post("/start")
def start(request: Any, body: Partner) -> dict[str, str]:
    return {"run": Command().delay(partner=body.partner).run_id}


class RunSerializer(serializers.ModelSerializer):
    class Meta:
        model = JobRun
        fields = ("id", "command", "status", "argv")


class RunViewSet(viewsets.ReadOnlyModelViewSet):
    queryset = JobRun.objects.all()
    serializer_class = RunSerializer
    permission_classes = (permissions.AllowAny,)
    renderer_classes = (renderers.JSONRenderer,)
    throttle_classes: tuple[type[throttling.BaseThrottle], ...] = ()

    @extend_schema(responses=RunSerializer)
    def create(self, request: Request) -> Response:
        return Response(RunSerializer(Command().delay(partner=request.data["partner"]).run).data, 201)


router = routers.DefaultRouter()
router.register("runs", RunViewSet)
urlpatterns = [
    path("ninja/", api.urls),
    path("drf/", include(router.urls)),
    path("schema/", SpectacularAPIView.as_view(permission_classes=[], renderer_classes=[renderers.JSONRenderer])),
    path("cloudrun_jobs/", include("cloudrun_jobs.urls")),
    path("own", endpoint(POST=start_run("echo"))),
]


def main() -> None:
    """Send requests to all three, and compare what they answer."""
    warnings.simplefilter("error")
    call_command("migrate", verbosity=0)
    call_command("check", fail_level="WARNING")
    client = Client(enforce_csrf_checks=True, raise_request_exception=False)

    def call(method: str, path: str, data: Any = None, **headers: str) -> tuple[int, Any]:
        body = "" if data is None else json.dumps(data)
        response = client.generic(method, path, body, "application/json", headers=headers)
        return response.status_code, json.loads(response.content)

    # The HTTP API has its own credentials, errors and CSRF rules.
    token = {"x-token": "the token"}
    assert call("GET", "/cloudrun_jobs/jobs/")[1]["error"]["code"] == "unauthenticated"
    for _ in range(3):
        assert call("POST", "/cloudrun_jobs/jobs/echo/", {"partner": 7}, **token)[0] == 202
        assert call("POST", "/own", {"partner": 7}, **token)[0] == 202
    status, answer = call("POST", "/cloudrun_jobs/jobs/echo/", {"partner": "x"}, **token)
    assert (status, answer["error"]["code"]) == (422, "invalid_options")
    assert len(call("GET", "/cloudrun_jobs/jobs/", **token)[1]["runs"]) == 6
    assert call("GET", "/cloudrun_jobs/elsewhere/", **token)[1]["error"]["code"] == "not_found"

    # Ninja and DRF have theirs, and start runs too.
    assert call("POST", "/ninja/start", {"partner": 8})[0] == 401
    assert call("POST", "/ninja/start", {"partner": "x"}, **{"x-ninja": "1"})[0] == 422
    status, answer = call("POST", "/ninja/start", {"partner": 8}, **{"x-ninja": "1"})
    assert (status, JobRun.objects.get(pk=answer["run"]).argv) == (200, ["echo", "--partner=8"])
    status, answer = call("POST", "/drf/runs/", {"partner": 9})
    assert (status, answer["argv"]) == (201, ["echo", "--partner=9"])
    assert call("GET", f"/drf/runs/{answer['id']}/")[1] == answer
    assert call("GET", f"/cloudrun_jobs/jobs/{answer['id']}/", **token)[1]["argv"] == answer["argv"]

    # Each schema describes its own URLs, and nothing else.
    schemas = {
        "/ninja/openapi.json": {"/ninja/start"},
        "/schema/": {"/drf/runs/", "/drf/runs/{id}/", "/schema/"},
    }
    for url, expected in schemas.items():
        assert set(call("GET", url)[1]["paths"]) == expected
    described = call("GET", "/cloudrun_jobs/schema/", **token)[1]["paths"]
    assert described
    assert not any("ninja" in found or "drf" in found for found in described)
    call_command("spectacular", validate=True, fail_on_warn=True, stdout=StringIO())
    sys.stdout.write(f"The HTTP API beside Django Ninja and DRF: {JobRun.objects.count()} runs, 3 schemas.\n")


if __name__ == "__main__":
    main()
