"""The Django app."""

from __future__ import annotations

from django.apps import AppConfig


class RatesConfig(AppConfig):
    name = "rates"
    verbose_name = "Euro reference rates"
    default_auto_field = "django.db.models.BigAutoField"
