"""The alert policies of an export, their conditions, and the resources that they cover."""

from __future__ import annotations

import json
import re
import subprocess
from typing import Any

import pytest
from django.core.management.base import CommandError
from django.urls import reverse
from pytest_django import Settings

from cloudrun_jobs.backends.cloudrun.targets import HEALTH_PATH
from tests.deploy.export.conftest import Export
from tests.deploy.export.terraform import resources
from tests.deploy.export.test_command import messages

IMAGE = ("--image", "app:1")
POLICY = "google_monitoring_alert_policy"
CHECK = "google_monitoring_uptime_check_config"
VARIABLE = "cloudrun_jobs_notification_channels"


def policies(document: str) -> dict[str, dict[str, Any]]:
    return resources(document)[POLICY]


def documents(script: str) -> list[str]:
    """Return the policies in a script of gcloud commands."""
    return re.findall(r"<<'END_OF_POLICY'.*?\n(.*?)\nEND_OF_POLICY\n", script, re.DOTALL)


def threshold(policy: dict[str, Any]) -> dict[str, Any]:
    [condition] = policy["conditions"]
    found: dict[str, Any] = condition["condition_threshold"]
    return found


def test_failed_execution(export: Export) -> None:
    """Each exported job has a policy that fires at its first failed execution."""
    [(name, policy)] = policies(export("terraform", *IMAGE)).items()

    assert name == "echo-production_failed"
    assert threshold(policy)["filter"] == (
        'resource.type = "cloud_run_job" AND resource.labels.job_name = "echo-production" '
        'AND resource.labels.location = "europe-west4" '
        'AND metric.type = "run.googleapis.com/job/completed_execution_count" AND metric.labels.result = "failed"'
    )
    assert (threshold(policy)["comparison"], threshold(policy)["threshold_value"]) == ("COMPARISON_GT", 0)
    assert policy["notification_channels"] == f"${{var.{VARIABLE}}}"
    assert "`manage.py cloudrun_jobs runs echo --failed`" in policy["documentation"]["content"]


def test_every_job_has_a_policy(export: Export) -> None:
    """Without --command, each job has a policy; without a web service or workers, there are no others."""
    within = resources(export("terraform", *IMAGE, commands=()))

    assert list(within[POLICY]) == [f"{job}_failed" for job in within["google_cloud_run_v2_job"]]
    assert CHECK not in within


@pytest.mark.parametrize(
    ("service_url", "port"), [("https://web.example.com", 443), ("https://web.example.com:65535/", 65535)]
)
def test_health(export: Export, options: dict[str, Any], service_url: str, port: int) -> None:
    """With a URL of the web service, an uptime check requests its health, and a policy uses the check."""
    options["service_url"] = service_url
    within = resources(export("terraform", *IMAGE))

    [(name, check)] = within[CHECK].items()
    http = {"path": "/cloudrun_jobs/health/", "port": port, "use_ssl": True, "validate_ssl": True}
    assert check["http_check"] == http
    assert check["monitored_resource"]["labels"] == {"project_id": "acme", "host": "web.example.com"}
    assert threshold(within[POLICY]["cloudrun-jobs-production_unhealthy"])["filter"] == (
        'resource.type = "uptime_url" AND metric.type = "monitoring.googleapis.com/uptime_check/check_passed" '
        f'AND metric.labels.check_id = "${{{CHECK}.{name}.uptime_check_id}}"'
    )


def test_health_of_this_machine_is_not_checked(export: Export, options: dict[str, Any]) -> None:
    """A service on this machine has no uptime check, because Google cannot reach it."""
    options["service_url"] = "http://localhost:8000"

    assert CHECK not in resources(export("terraform", *IMAGE))


@pytest.mark.parametrize("port", ["65536", "99999", "100000"])
def test_port_that_does_not_exist_is_rejected(export: Export, options: dict[str, Any], port: str) -> None:
    """The error names the setting."""
    options["service_url"] = f"https://web.example.com:{port}"

    with pytest.raises(CommandError, match=r"\['service_url'\]: expected an HTTPS URL"):
        export("terraform", *IMAGE)


def test_health_is_at_its_url() -> None:
    """The path of the uptime check is the path of health in the HTTP API."""
    assert reverse("cloudrun_jobs:health") == HEALTH_PATH


@pytest.mark.usefixtures("celery")
def test_workers(export: Export) -> None:
    """A worker pool has policies for errors and restarts, and its Redis for its CPU."""
    found = policies(export("terraform", commands=()))

    redis, errors = threshold(found["production_redis-cpu"]), threshold(found["celery-worker-production_errors"])
    [restarts] = found["celery-worker-production_restarts"]["conditions"]
    assert (redis["threshold_value"], redis["duration"]) == (0.7, "300s")
    assert redis["filter"] == (
        'resource.type = "redis_instance" AND resource.labels.instance_id = "${google_redis_instance.celery.id}" '
        'AND metric.type = "redis.googleapis.com/stats/cpu_utilization_main_thread"'
    )
    assert (errors["threshold_value"], errors["aggregations"][0]["alignment_period"]) == (5, "60s")
    assert errors["filter"] == (
        'resource.type = "cloud_run_worker_pool" '
        'AND resource.labels.worker_pool_name = "celery-worker-production" '
        'AND resource.labels.location = "europe-west4" AND metric.type = "logging.googleapis.com/log_entry_count" '
        'AND metric.labels.severity = one_of("ERROR", "CRITICAL", "ALERT", "EMERGENCY")'
    )
    assert (
        'worker_pool_name="celery-worker-production"' in restarts["condition_prometheus_query_language"]["query"]
    )


@pytest.mark.usefixtures("celery")
def test_gcloud_has_the_same_policies(export: Export, options: dict[str, Any]) -> None:
    """The script is valid, and has the policies of the Terraform document, for every Redis of the region."""
    options["service_url"] = "https://web.example.com"
    script = export("gcloud", commands=())
    terraform = policies(export("terraform", commands=()))
    names = sorted(json.loads(document)["displayName"] for document in documents(script))

    subprocess.run(["sh", "-n"], input=script, text=True, check=True)
    assert names == sorted(policy["display_name"] for policy in terraform.values())
    assert r"resource.type = \"redis_instance\" AND resource.labels.region = \"europe-west4\" AND" in script


@pytest.mark.parametrize("form", ["terraform", "gcloud"])
@pytest.mark.usefixtures("celery")
def test_alerts_can_be_omitted(export: Export, options: dict[str, Any], form: str) -> None:
    """With --no-alerts, no resources of Cloud Monitoring are exported."""
    options["service_url"] = "https://web.example.com"

    document = export(form, "--no-alerts", commands=())
    assert ("monitoring" in document, "notification" in document) == (False, False)


def test_channels(export: Export) -> None:
    """Channels have a name or number, and are defaults in both formats; without any, the default is empty."""
    name = "projects/other/notificationChannels/2"
    channels = ("--notification-channel", "1", "--notification-channel", name)
    expected = ["projects/acme/notificationChannels/1", name]

    variables = [json.loads(export("terraform", *IMAGE, *args))["variable"] for args in (channels, ())]
    assert [each[VARIABLE]["default"] for each in variables] == [expected, []]
    assert f"channels=${{NOTIFICATION_CHANNELS-{','.join(expected)}}}" in export("gcloud", *IMAGE, *channels)


@pytest.mark.parametrize(
    "channel", ["", "on-call", "projects/acme/notificationChannels/$(id)", "1;id", "#general"]
)
def test_invalid_channel_is_rejected(export: Export, channel: str) -> None:
    """The error names the form of a channel and the command that lists them."""
    with pytest.raises(CommandError, match="expected a number or projects/PROJECT/notificationChannels/NUMBER"):
        export("terraform", *IMAGE, "--notification-channel", channel)


def test_missing_health_is_reported(settings: Settings, options: dict[str, Any]) -> None:
    """A message on stderr says that the uptime check has no URL to read."""
    options["service_url"] = "https://web.example.com"
    settings.CLOUDRUN_JOBS = {**settings.CLOUDRUN_JOBS, "HTTP": {"HEALTH": "public"}}
    settings.ROOT_URLCONF = "tests.containers.project.standin.web"

    text = messages("--format", "terraform", *IMAGE, "--command", "echo")
    assert "this project has no URL /cloudrun_jobs/health/" in text


@pytest.mark.parametrize(("health", "is_reported"), [("closed", True), ("public", False)])
def test_closed_health_is_reported(
    settings: Settings, options: dict[str, Any], health: str, is_reported: bool
) -> None:
    """A message on stderr says that the uptime check would fail."""
    options["service_url"] = "https://web.example.com"
    settings.CLOUDRUN_JOBS = {**settings.CLOUDRUN_JOBS, "HTTP": {"HEALTH": health}}

    text = messages("--format", "terraform", *IMAGE, "--command", "echo")
    assert ("CLOUDRUN_JOBS['HTTP']['HEALTH'] to \"public\"" in text) is is_reported
