"""URLs of the tests: the HTTP API at its usual prefix."""

from __future__ import annotations

from django.urls import include, path

urlpatterns = [path("cloudrun_jobs/", include("cloudrun_jobs.urls"))]
