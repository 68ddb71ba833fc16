"""Alert policies for the exported jobs, the health of the web service, and Celery workers.

Policies are written as the Cloud Monitoring API's JSON.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from cloudrun_jobs.backends.cloudrun.targets import HEALTH_PATH
from cloudrun_jobs.deploy.desired import DesiredJob, WorkerPool
from cloudrun_jobs.exceptions import CloudRunJobsError

LABEL_PREFIX = "cloudrun_jobs"  # The first part of the names of labels.
CHANNEL_PATTERN = re.compile(r"projects/[a-z0-9.:-]+/notificationChannels/[0-9]+")
# An incident closes this long after the last data. Only then does a later failure notify again.
AUTO_CLOSE = "1800s"
REDIS_CPU_LIMIT = 0.7  # Of the main thread, which executes all commands on one core.
WORKER_ERRORS_PER_MINUTE = 5
# Each deployment starts each instance once.
RESTARTS_QUERY = """\
(sum(increase({metric}_count{{{labels}}}[10m])) or vector(0))
> 3 + 2 * (sum(avg_over_time({instances}{{{labels}}}[10m])) or vector(0))"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Alerts:
    """The inputs of the alert policies besides the jobs."""

    environment: str
    service_url: str | None = None
    channels: Sequence[str] = ()  # The names of the notification channels.


@dataclass(frozen=True, slots=True)
class Policy:
    """An alert policy. Labels with its kind and resource identify it in the cloud."""

    kind: str
    resource: str
    body: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class UptimeCheck:
    """The uptime check of the web service's `health/`, every five minutes."""

    name: str
    host: str
    port: int


def channel_name(channel: str, project: str) -> str:
    """Return the full name of a notification channel, given by its name or number."""
    name = channel if "/" in channel else f"projects/{project}/notificationChannels/{channel}"
    if CHANNEL_PATTERN.fullmatch(name) is None:
        expected = "expected a number or projects/PROJECT/notificationChannels/NUMBER"
        hint = "`gcloud beta monitoring channels list` shows the names."
        raise CloudRunJobsError(f"Notification channel: {expected}, got {channel!r}.", hint=hint)
    return name


def labels(policy: Policy, region: str) -> dict[str, str]:
    """Return the labels that identify a policy in the cloud, even if its display name changes."""
    names = ("alert", "resource", "region")
    return dict(
        zip((f"{LABEL_PREFIX}_{name}" for name in names), (policy.kind, policy.resource, region), strict=True)
    )


def uptime_check(alerts: Alerts) -> UptimeCheck | None:
    """Return the uptime check of `health/`; None if the project has no web service."""
    url = urlsplit(alerts.service_url or "")
    if url.scheme != "https" or url.hostname is None:  # HTTP is for this machine, which Google cannot reach.
        return None
    return UptimeCheck(name=f"cloudrun-jobs-{alerts.environment}", host=url.hostname, port=url.port or 443)


def failed_execution(job: DesiredJob, region: str) -> Policy:
    """Return the policy for failed executions of the job."""
    condition = _threshold(
        {
            "resource.type": "cloud_run_job",
            "resource.labels.job_name": job.id,
            "resource.labels.location": region,
            "metric.type": "run.googleapis.com/job/completed_execution_count",
            "metric.labels.result": "failed",
        },
        aligner="ALIGN_DELTA",
        group_by="resource.label.job_name",
    )
    text = f"An execution of the Cloud Run job `{job.id}` failed, after the retries of its tasks."
    command = f"`manage.py cloudrun_jobs runs {job.ownership.command} --failed` lists its runs."
    return _policy("failed", job.id, "execution failed", "ERROR", f"{text} {command}", condition)


def unhealthy(check: UptimeCheck, check_id: str) -> Policy:
    """Return the policy for the uptime check, whose id may be a Terraform expression."""
    condition = _threshold(
        {
            "resource.type": "uptime_url",
            "metric.type": "monitoring.googleapis.com/uptime_check/check_passed",
            "metric.labels.check_id": check_id,
        },
        # Two regions must fail, not one.
        limit=1,
        duration="60s",
        period="1200s",
        aligner="ALIGN_NEXT_OLDER",
        reducer="REDUCE_COUNT_FALSE",
        group_by="resource.label.host",
    )
    text = (
        f"`{HEALTH_PATH}` of {check.host} reports a fault, such as an overdue schedule, or does not respond. "
        "The response to a caller with the scope `read` lists the faults."
    )
    return _policy("unhealthy", check.name, "schedule overdue, or unhealthy", "ERROR", text, condition)


def of_workers(pools: Sequence[WorkerPool], region: str, redis: dict[str, str]) -> Iterator[Policy]:
    """Yield the policies for the worker pools and their Redis. `redis` are the resource labels of Redis."""
    for pool in pools:
        yield _worker_errors(pool.job.id, region)
        yield _worker_restarts(pool.job.id, region)
    if pools:
        yield _redis_cpu(pools[0].job.ownership.environment, redis)


def _worker_errors(pool: str, region: str) -> Policy:
    condition = _threshold(
        {
            "resource.type": "cloud_run_worker_pool",
            "resource.labels.worker_pool_name": pool,
            "resource.labels.location": region,
            "metric.type": "logging.googleapis.com/log_entry_count",
            "metric.labels.severity": ("ERROR", "CRITICAL", "ALERT", "EMERGENCY"),
        },
        limit=WORKER_ERRORS_PER_MINUTE,
        aligner="ALIGN_DELTA",
        group_by="resource.label.worker_pool_name",
    )
    text = f"The workers of `{pool}` logged more than {WORKER_ERRORS_PER_MINUTE} errors in a minute."
    return _policy("errors", pool, "worker errors", "ERROR", text, condition)


def _worker_restarts(pool: str, region: str) -> Policy:
    labels = f'monitored_resource="cloud_run_worker_pool",worker_pool_name="{pool}",location="{region}"'
    metrics = {
        "metric": "run_googleapis_com:container_startup_latencies",
        "instances": "run_googleapis_com:container_instance_count",
    }
    condition = {
        "conditionPrometheusQueryLanguage": {
            "query": RESTARTS_QUERY.format(**metrics, labels=labels),
            "duration": "0s",
            "evaluationInterval": "60s",
        }
    }
    text = (
        f"Containers of `{pool}` start more often than a deployment explains: in ten minutes, more than three "
        "plus two per instance. The system log of the worker pool shows the reason, such as the memory limit."
    )
    return _policy("restarts", pool, "containers restart", "ERROR", text, condition)


def _redis_cpu(environment: str, redis: dict[str, str]) -> Policy:
    condition = _threshold(
        {
            "resource.type": "redis_instance",
            **redis,
            "metric.type": "redis.googleapis.com/stats/cpu_utilization_main_thread",
        },
        limit=REDIS_CPU_LIMIT,
        duration="300s",
        aligner="ALIGN_RATE",
        group_by="resource.label.instance_id,resource.label.node_id",
    )
    text = f"The CPU use of Redis has been over {REDIS_CPU_LIMIT:.0%} for five minutes."
    return _policy("redis-cpu", environment, "Redis CPU", "WARNING", text, condition)


def _threshold(
    labels: dict[str, str | tuple[str, ...]],
    *,
    aligner: str,
    group_by: str,
    limit: float = 0,
    duration: str = "0s",
    period: str = "60s",
    reducer: str = "REDUCE_SUM",
) -> dict[str, Any]:
    aggregation = {
        "alignmentPeriod": period,
        "perSeriesAligner": aligner,
        "crossSeriesReducer": reducer,
        "groupByFields": group_by.split(","),
    }
    return {
        "conditionThreshold": {
            "filter": " AND ".join(f"{name} = {_value(value)}" for name, value in labels.items()),
            "comparison": "COMPARISON_GT",
            "thresholdValue": limit,
            "duration": duration,
            "aggregations": [aggregation],
        }
    }


def _value(value: str | tuple[str, ...]) -> str:
    if isinstance(value, str):
        return f'"{value}"'
    return f"one_of({', '.join(map(_value, value))})"


def _policy(kind: str, resource: str, title: str, severity: str, text: str, condition: dict[str, Any]) -> Policy:
    body = {
        "displayName": f"{resource}: {title}",
        "documentation": {"content": text, "mimeType": "text/markdown"},
        "severity": severity,
        "combiner": "OR",
        "conditions": [{"displayName": title, **condition}],
        "alertStrategy": {"autoClose": AUTO_CLOSE},
    }
    return Policy(kind, resource, body)
