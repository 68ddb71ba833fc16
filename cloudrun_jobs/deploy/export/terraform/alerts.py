"""Write the alert policies, and the uptime check of the policy for `health/`."""

from __future__ import annotations

import re
from typing import Any

from cloudrun_jobs.backends.cloudrun.targets import HEALTH_PATH
from cloudrun_jobs.deploy.export import alerts
from cloudrun_jobs.deploy.export.declarations import Declarations
from cloudrun_jobs.deploy.export.terraform.celery import REDIS
from cloudrun_jobs.deploy.export.terraform.expressions import Expression

CHANNELS = "cloudrun_jobs_notification_channels"
CHECK = "google_monitoring_uptime_check_config"
HEALTH = "cloudrun_jobs_health"


def variables(declarations: Declarations) -> dict[str, Any]:
    if declarations.alerts is None:
        return {}
    description = "The notification channels of the alerts: projects/PROJECT/notificationChannels/NUMBER"
    channels = list(declarations.alerts.channels)
    return {CHANNELS: {"type": "list(string)", "default": channels, "description": description}}


def resources(declarations: Declarations) -> dict[str, dict[str, Any]]:
    """Return the alert policies and the uptime check. Keys are unique: names of jobs contain no underscore."""
    if declarations.alerts is None:
        return {}
    check = alerts.uptime_check(declarations.alerts)
    policies = [alerts.failed_execution(job, declarations.region) for job in declarations.jobs]
    if check:
        policies.append(alerts.unhealthy(check, f"${{{CHECK}.{HEALTH}.uptime_check_id}}"))
    redis = {"resource.labels.instance_id": f"${{google_redis_instance.{REDIS}.id}}"}
    policies += alerts.of_workers(declarations.worker_pools, declarations.region, redis)
    named = {f"{policy.resource}_{policy.kind}": _policy(policy, declarations) for policy in policies}
    return {
        CHECK: {HEALTH: _check(check, declarations)} if check else {},
        "google_monitoring_alert_policy": dict(sorted(named.items())),
    }


def _policy(policy: alerts.Policy, declarations: Declarations) -> dict[str, Any]:
    return {
        "project": declarations.project,
        **_expressions(_snake_case(policy.body)),
        "user_labels": alerts.labels(policy, declarations.region),
        "notification_channels": Expression(f"${{var.{CHANNELS}}}"),
    }


def _snake_case(value: Any) -> Any:
    """Convert the names of the API's fields to the names of Terraform's arguments."""
    if isinstance(value, dict):
        return {re.sub("[A-Z]", r"_\g<0>", name).lower(): _snake_case(item) for name, item in value.items()}
    return [_snake_case(item) for item in value] if isinstance(value, list) else value


def _expressions(body: dict[str, Any]) -> dict[str, Any]:
    """Mark the filters of the policy as expressions, because they may contain references."""
    for condition in body["conditions"]:
        if threshold := condition.get("condition_threshold"):
            threshold["filter"] = Expression(threshold["filter"])
    return body


def _check(check: alerts.UptimeCheck, declarations: Declarations) -> dict[str, Any]:
    http = {"path": HEALTH_PATH, "port": check.port, "use_ssl": True, "validate_ssl": True}
    return {
        "project": declarations.project,
        "display_name": check.name,
        "period": "300s",
        "timeout": "10s",
        "http_check": http,
        "monitored_resource": {
            "type": "uptime_url",
            "labels": {"project_id": declarations.project, "host": check.host},
        },
    }
