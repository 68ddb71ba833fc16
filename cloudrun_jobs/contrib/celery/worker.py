"""Set up a Celery worker that runs jobs."""

from __future__ import annotations

from typing import Any

from billiard import current_process
from celery.signals import worker_init, worker_process_init, worker_ready

from cloudrun_jobs import environ
from cloudrun_jobs.backends.celery import DEFAULT_VISIBILITY_TIMEOUT, CeleryBackend

# The time in which running tasks may finish before the worker interrupts them.
SOFT_SHUTDOWN_TIMEOUT = 2.0  # seconds

VISIBILITY_MARGIN = 60  # seconds

# Celery looks for dead processes every five seconds: their siblings keep open the pipe that would tell it.
MAINTENANCE_INTERVAL = 1.0  # seconds

UID = "cloudrun_jobs"


@worker_init.connect(dispatch_uid=UID)  # type: ignore[untyped-decorator]  # Celery has no annotations
def configure(sender: Any, **kwargs: Any) -> None:
    """Set the visibility timeout and the soft shutdown timeout that the project leaves to Celery."""
    settings = sender.app.conf
    options = settings.broker_transport_options or {}
    if "visibility_timeout" not in options:
        settings.broker_transport_options = {**options, "visibility_timeout": visibility_timeout()}
    if not settings.worker_soft_shutdown_timeout:
        settings.worker_soft_shutdown_timeout = SOFT_SHUTDOWN_TIMEOUT


def visibility_timeout() -> int:
    """Return the seconds after which a message is delivered again: more than twice the longest timeout."""
    from cloudrun_jobs import backends
    from cloudrun_jobs.registry import find_specs

    specs = [spec for spec in find_specs() if isinstance(backends.for_job(spec), CeleryBackend)]
    longest = max((spec.timeout.total_seconds() for spec in specs), default=0.0)
    return max(DEFAULT_VISIBILITY_TIMEOUT, int(2 * longest) + VISIBILITY_MARGIN)


@worker_process_init.connect(dispatch_uid=UID)  # type: ignore[untyped-decorator]
def enter_pool_process(**kwargs: Any) -> None:
    """Let jobs replace signal handlers in a process of the pool. The solo pool runs jobs in the main process."""
    if current_process().name != "MainProcess":
        environ.enter_pool_process()


@worker_ready.connect(dispatch_uid=UID)  # type: ignore[untyped-decorator]
def find_dead_processes_soon(sender: Any, **kwargs: Any) -> None:
    """Look for dead processes of the pool more often. The worker is ready again after each lost connection."""
    worker = sender.controller
    if worker.use_eventloop and not getattr(worker, UID, False):
        setattr(worker, UID, True)
        worker.hub.call_repeatedly(MAINTENANCE_INTERVAL, worker.pool.maintain_pool)
