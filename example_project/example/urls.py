"""URLs of the example."""

from __future__ import annotations

from django.contrib import admin
from django.contrib.auth.views import LoginView, LogoutView
from django.urls import include, path

from rates import views

urlpatterns = [
    path("", views.latest, name="latest"),
    path("collect/", views.collect, name="collect"),
    path("admin/", admin.site.urls),
    path("login/", LoginView.as_view(next_page="latest"), name="login"),
    path("logout/", LogoutView.as_view(next_page="latest"), name="logout"),
    path("", include("ingest.urls")),
    path("cloudrun_jobs/", include("cloudrun_jobs.urls")),
]
