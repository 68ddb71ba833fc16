"""The URLs of the HTTP API: `path("cloudrun_jobs/", include("cloudrun_jobs.urls"))`."""

from __future__ import annotations

from functools import partial

from django.urls import path

from cloudrun_jobs.http.paths import PATHS
from cloudrun_jobs.http.route import Route, view_of


def _load(name: str) -> Route:
    from cloudrun_jobs.http.routes import ROUTES  # Imports what answers requests.

    return ROUTES[name]


def _missing() -> Route:
    return Route("<path:path>", "missing", {})


app_name = "cloudrun_jobs"
urlpatterns = [
    *(path(pattern, view_of(partial(_load, name)), name=name) for name, pattern in PATHS.items()),
    path("<path:path>", view_of(_missing)),
]
