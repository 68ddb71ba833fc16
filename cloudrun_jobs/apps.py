"""The Django app."""

from __future__ import annotations

import signal
import sys

from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _


class CloudRunJobsConfig(AppConfig):
    """Connects the log's receivers and registers the system checks; in a container, makes output line-buffered."""

    name = "cloudrun_jobs"
    verbose_name = _("Cloud Run Jobs")
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from cloudrun_jobs import environ
        from cloudrun_jobs.logs import receivers, tracebacks  # noqa: F401

        if environ.in_cloud():
            tracebacks.log_uncaught()
        # A container runs one job, and need not import the checks of all the others.
        if environ.in_container():
            if not environ.in_cloud():
                tracebacks.escape_tracebacks()
            environ.line_buffer_output()
            environ.use_test_databases()
            return
        from cloudrun_jobs import checks  # noqa: F401

        if "celery" in sys.modules and _uses_celery():
            from cloudrun_jobs.contrib.celery import task, worker  # noqa: F401

        if callable(signal.getsignal(signal.SIGTERM)):  # In a server.
            from cloudrun_jobs.execution import termination

            termination.follow_server()


def _uses_celery() -> bool:
    """Return True if the settings have a Celery backend that is enabled."""
    from cloudrun_jobs import backends
    from cloudrun_jobs.backends.celery import CeleryBackend
    from cloudrun_jobs.exceptions import InvalidSettings

    try:
        return any(isinstance(backend, CeleryBackend) for backend in backends.configured())
    except InvalidSettings:
        return False  # The system checks report it.
