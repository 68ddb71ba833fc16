"""The Celery worker pools that the settings declare, with the variables, network and account of `DEFAULTS`."""

from __future__ import annotations

from cloudrun_jobs import backends, conf
from cloudrun_jobs.backends.celery import CeleryBackend
from cloudrun_jobs.backends.cloudrun import CloudRunBackend
from cloudrun_jobs.deploy.desired import DesiredJob, Secret, WorkerPool
from cloudrun_jobs.deploy.jobs import environment, optional_fields, ownership_and_note, shared_fields
from cloudrun_jobs.deploy.plan import Redacted
from cloudrun_jobs.spec.job import declare

SIZE = {"cpu": "2", "memory": "4Gi"}  # Unless DEFAULTS declares another.
# At SIGTERM, tasks have two seconds to finish, and are interrupted then: Cloud Run sends SIGKILL after ten.
SHUTDOWN = {"REMAP_SIGTERM": "SIGQUIT", "CELERY_WORKER_SOFT_SHUTDOWN_TIMEOUT": "2"}
SECRETS = {
    "CELERY_BROKER_URL": "celery-broker-url",
    "CELERY_RESULT_BACKEND": "celery-result-backend",
    "REDIS_URL": "redis-url",
}


def desired(backend: CloudRunBackend, *, image: str | None) -> list[WorkerPool]:
    """Return a worker pool for each Celery backend."""
    found = (celery for celery in backends.configured() if isinstance(celery, CeleryBackend))
    return [_worker_pool(celery, backend, image) for celery in found]


def _worker_pool(celery: CeleryBackend, backend: CloudRunBackend, image: str | None) -> WorkerPool:
    size = {name: value for name, value in SIZE.items() if name not in conf.load().defaults}
    spec = declare(f"{celery.alias or 'celery'}_worker", size)
    shared = shared_fields(spec, backend)
    job = DesiredJob(
        id=spec.name,
        label=spec.command,
        **ownership_and_note(spec, ()),
        image=image or spec.image,
        entrypoint=("celery",),
        args=(),
        timeout=spec.timeout,
        max_retries=0,
        tasks=1,
        env_vars={
            **{name: Redacted(value) for name, value in SHUTDOWN.items()},
            **{name: Secret(secret, "latest") for name, secret in SECRETS.items()},
            **environment(backend),
            **shared.env_vars,
        },
        cloud_sql=shared.cloud_sql,
        vpc=shared.vpc,
        **optional_fields(spec, backend),
    )
    return WorkerPool(job=job, app=celery.app_path, queues=celery.queues)
