"""The URLs of `tests.admin.project`, with the `ModelAdmin` of django-unfold if it is installed."""

from __future__ import annotations

from typing import Any

from django.apps import apps
from django.contrib import admin
from django.urls import path
from django.utils.module_loading import import_string

from cloudrun_jobs.admin import JobAdminMixin, JobRunAdminMixin
from cloudrun_jobs.models import Job, JobRun

path_of_class = "unfold.admin.ModelAdmin" if apps.is_installed("unfold") else "django.contrib.admin.ModelAdmin"
ModelAdmin: Any = import_string(path_of_class)

admin.site.unregister([Job, JobRun])


@admin.register(Job)
class JobAdmin(JobAdminMixin, ModelAdmin):  # type: ignore[misc]
    pass


@admin.register(JobRun)
class JobRunAdmin(JobRunAdminMixin, ModelAdmin):  # type: ignore[misc]
    pass


urlpatterns = [path("admin/", admin.site.urls)]
