"""The Django app."""

from __future__ import annotations

from django.apps import AppConfig


class ExportConfig(AppConfig):
    name = "export"
    verbose_name = "Export of BigQuery tables"
    default_auto_field = "django.db.models.BigAutoField"
