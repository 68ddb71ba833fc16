"""The Django app of the job that `BackendContract` runs."""

from __future__ import annotations

from django.apps import AppConfig


class TestingConfig(AppConfig):
    """Installs the job `backend_contract`, in the settings of tests."""

    name = "cloudrun_jobs.testing"
    label = "cloudrun_jobs_testing"
    verbose_name = "Cloud Run Jobs: tests"
