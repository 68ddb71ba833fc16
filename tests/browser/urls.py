"""URLs of the web server that the browser opens: those of a project with the admin alone."""

from __future__ import annotations

from django.contrib import admin
from django.http import HttpResponse
from django.urls import include, path

urlpatterns = [
    path("admin/", admin.site.urls),
    path("cloudrun_jobs/", include("cloudrun_jobs.urls")),
    path("favicon.ico", lambda request: HttpResponse(status=204)),  # The browser asks for it.
]
