"""The URLs of benchmarks/http.py."""

from __future__ import annotations

from django.urls import include, path

urlpatterns = [path("cloudrun_jobs/", include("cloudrun_jobs.urls"))]
