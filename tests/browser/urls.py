"""URLs of the web server that the browser opens: those of a project with the admin alone."""

from __future__ import annotations

from django.contrib import admin
from django.contrib.auth.admin import UserAdmin
from django.http import HttpResponse
from django.urls import include, path

# The admin's own list of users is as much like our lists as it can be: axe compares them.
UserAdmin.search_help_text = "A name."

urlpatterns = [
    path("admin/", admin.site.urls),
    path("cloudrun_jobs/", include("cloudrun_jobs.urls")),
    path("favicon.ico", lambda request: HttpResponse(status=204)),  # The browser asks for it.
]
