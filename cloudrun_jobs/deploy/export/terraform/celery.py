"""Write Celery worker pools, Memorystore as their broker, and the secrets with its URLs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from cloudrun_jobs.deploy.desired import WorkerPool
from cloudrun_jobs.deploy.export.declarations import Declarations, present
from cloudrun_jobs.deploy.export.terraform.access import Accounts
from cloudrun_jobs.deploy.export.terraform.expressions import Expression
from cloudrun_jobs.deploy.export.terraform.resources import template
from cloudrun_jobs.deploy.workers import SECRETS

APP, INSTANCES = "cloudrun_jobs_celery_app", "cloudrun_jobs_celery_instances"
NETWORK, SUBNETWORK = "cloudrun_jobs_network", "cloudrun_jobs_subnetwork"
REDIS = "celery"
DATABASES = {secret: number for number, secret in enumerate(SECRETS.values())}  # Of Redis.


def variables(pools: Sequence[WorkerPool]) -> dict[str, Any]:
    app, network = next((pool.app for pool in pools if pool.app), None), pools[0].job.vpc
    return {
        APP: present(type="string", default=app, description="The Celery app, as celery -A takes it"),
        INSTANCES: {"type": "number", "default": 1, "description": "The number of instances of each worker pool"},
        NETWORK: {"type": "string", "default": network.get("network", "default")},
        SUBNETWORK: {"type": "string", "default": network.get("subnetwork", "default")},
    }


def worker_pool(pool: WorkerPool, declarations: Declarations, accounts: Accounts) -> dict[str, Any]:
    queues = [f"--queues={','.join(pool.queues)}"] if pool.queues else []
    options = ("--loglevel=info", *queues, "--concurrency=4", "--prefetch-multiplier=1")
    job = replace(pool.job, args=("-A", Expression(f"${{var.{APP}}}"), "worker", *options), vpc={})
    interface = {"network": Expression(f"${{var.{NETWORK}}}"), "subnetwork": Expression(f"${{var.{SUBNETWORK}}}")}
    bindings = [f"google_secret_manager_secret_iam_member.{name}" for name in accounts.secret_bindings(job)]
    return {
        "name": job.id,
        "location": declarations.region,
        "project": declarations.project,
        "scaling": {"scaling_mode": "MANUAL", "manual_instance_count": Expression(f"${{var.{INSTANCES}}}")},
        "template": {
            **template(job, accounts),
            "vpc_access": {"network_interfaces": [interface], "egress": "PRIVATE_RANGES_ONLY"},
        },
        "depends_on": [*bindings, *(f"google_secret_manager_secret_version.{name}" for name in DATABASES)],
    }


def broker(declarations: Declarations) -> dict[str, dict[str, Any]]:
    """Return Redis with two nodes, and the secrets with its URLs."""
    place = {"project": declarations.project}
    redis = {
        **place,
        "name": REDIS,
        "region": declarations.region,
        "tier": "STANDARD_HA",
        "memory_size_gb": 1,
        "redis_version": "REDIS_7_2",
        "redis_configs": {"maxmemory-policy": "noeviction"},  # Eviction would lose locks.
        "auth_enabled": True,
        "authorized_network": Expression(f"${{var.{NETWORK}}}"),
    }
    server = f"google_redis_instance.{REDIS}"
    address = f"redis://:${{{server}.auth_string}}@${{{server}.host}}:${{{server}.port}}"
    return {
        "google_redis_instance": {REDIS: redis},
        "google_secret_manager_secret": {
            name: {**place, "secret_id": name, "replication": {"auto": {}}} for name in DATABASES
        },
        "google_secret_manager_secret_version": {
            name: {
                "secret": Expression(f"${{google_secret_manager_secret.{name}.id}}"),
                "secret_data": Expression(f"{address}/{database}"),
            }
            for name, database in DATABASES.items()
        },
    }
