"""The Django app."""

from __future__ import annotations

from django.apps import AppConfig


class CloudRunJobsConfig(AppConfig):
    """Connects the log's receivers and the system checks; imports no Google client."""

    name = "cloudrun_jobs"
    verbose_name = "Cloud Run Jobs"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from . import checks, logs  # noqa: F401
