"""The Django app."""

from __future__ import annotations

from django.apps import AppConfig


class PartnerConfig(AppConfig):
    name = "partner"
