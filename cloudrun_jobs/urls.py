"""The URLs of the HTTP API: `path("cloudrun_jobs/", include("cloudrun_jobs.urls"))`."""

from __future__ import annotations

from django.urls import path

from cloudrun_jobs.http.endpoint import missing
from cloudrun_jobs.http.routes import ROUTES

app_name = "cloudrun_jobs"
urlpatterns = [
    *(path(route.path, route.view, name=route.name) for route in ROUTES),
    path("<path:path>", missing),
]
