"""The Django app."""

from __future__ import annotations

from django.apps import AppConfig


class IngestConfig(AppConfig):
    name = "ingest"
    verbose_name = "Daily ingest"
    default_auto_field = "django.db.models.BigAutoField"
