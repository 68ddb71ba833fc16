"""The real gcloud creates the alert policies of the script once, and keeps manual changes."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cloudrun_jobs.deploy import workers
from cloudrun_jobs.deploy.export import Declarations, alerts
from cloudrun_jobs.deploy.export.alerts import Alerts
from cloudrun_jobs.deploy.export.gcloud import text
from cloudrun_jobs.emulator import Emulator
from cloudrun_jobs.management.selection import cloudrun_backend
from tests.deploy.export.conftest import Export
from tests.deploy.export.monitoring import Monitoring, mistakes, serve
from tests.deploy.export.test_alerts import documents
from tests.emulator.gcloud_cli import NEEDS_GCLOUD, PROJECT, REGION, Gcloud

pytestmark = NEEDS_GCLOUD
IMAGE = ("--image", "app:1")
FAILED = "echo-production: execution failed"
CHANNELS = [f"projects/acme/notificationChannels/{number}" for number in (1, 2)]


@pytest.fixture
def monitoring(emulator: Emulator) -> Iterator[Monitoring]:
    with serve(emulator.http) as monitoring:
        yield monitoring


@pytest.fixture
def gcloud(monitoring: Monitoring, tmp_path: Path) -> Gcloud:
    return Gcloud(monitoring.address, tmp_path)


def run(script: str, gcloud: Gcloud, **variables: str) -> str:
    """Run the script and return its stderr."""
    env = {**gcloud.environment(), **variables}
    done = subprocess.run(["sh"], input=script, capture_output=True, text=True, timeout=200, env=env)
    assert done.returncode == 0, done.stderr
    return done.stderr


def without_jobs(script: str) -> str:
    """Return the part of the script for the alerts."""
    return "set -eu\n" + script[script.index("# The notification channels") :]


@pytest.fixture
def workers_script(celery: None, options: dict[str, Any]) -> str:
    """The script for a project with a web service and a worker pool, without its jobs."""
    options["service_url"] = "https://web.example.com/"
    declarations = Declarations(
        project=PROJECT,
        region=REGION,
        scheduler_region=REGION,
        jobs=[],
        schedules=[],
        worker_pools=workers.desired(cloudrun_backend(), image=None),
        alerts=Alerts(environment="production", service_url=options["service_url"]),
    )
    return text(declarations)


def test_second_run_writes_nothing(workers_script: str, gcloud: Gcloud, monitoring: Monitoring) -> None:
    """The script creates each policy and the uptime check; a second run changes none of them."""
    messages = run(workers_script, gcloud)
    created = list(monitoring.writes)
    run(workers_script, gcloud)

    [check] = [name for name in monitoring.resources if "/uptimeCheckConfigs/" in name]
    [condition] = monitoring.policies["cloudrun-jobs-production: schedule overdue, or unhealthy"]["conditions"]
    assert sorted(monitoring.policies) == [
        "celery-worker-production: containers restart",
        "celery-worker-production: worker errors",
        "cloudrun-jobs-production: schedule overdue, or unhealthy",
        "production: Redis CPU",
    ]
    assert f'"{check.rpartition("/")[2]}"' in condition["conditionThreshold"]["filter"]
    assert monitoring.resources[check]["httpCheck"]["path"] == "/cloudrun_jobs/health/"
    assert (monitoring.writes, len(created)) == (created, 5)
    assert messages.count("Without NOTIFICATION_CHANNELS, new alerts appear only in Cloud Monitoring.") == 1


def test_script_stops_at_the_first_error(workers_script: str, gcloud: Gcloud, monitoring: Monitoring) -> None:
    """A policy that Cloud Monitoring rejects ends the script."""
    done = subprocess.run(
        ["sh"],
        input=workers_script.replace("ALIGN_DELTA", "ALIGN_DIFFERENCE"),
        capture_output=True,
        text=True,
        env=gcloud.environment(),
    )

    assert "Aggregation.perSeriesAligner: unknown value ALIGN_DIFFERENCE" in done.stderr
    assert (done.returncode != 0, monitoring.writes) == (True, [])


@pytest.mark.parametrize(
    ("mistake", "message"),
    [
        (("", ""), None),
        (("thresholdValue", "threshold"), "MetricThreshold: unknown field threshold"),
        (("evaluationInterval", "interval"), "PrometheusQueryLanguageCondition: unknown field interval"),
        (("ALIGN_DELTA", "ALIGN_DIFFERENCE"), "Aggregation.perSeriesAligner: unknown value ALIGN_DIFFERENCE"),
    ],
)
def test_mistakes_are_found(workers_script: str, mistake: tuple[str, str], message: str | None) -> None:
    """The stand-in for Cloud Monitoring knows the fields and values of a policy."""
    bodies = [json.loads(document.replace(*mistake)) for document in documents(workers_script)]

    assert {each for body in bodies for each in mistakes(body, "AlertPolicy")} == ({message} if message else set())


def test_manual_changes_are_kept(
    export: Export, gcloud: Gcloud, monitoring: Monitoring, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A policy notifies the exported channels; manual changes stay, unless the variable names channels."""
    run(without_jobs(export("gcloud", *IMAGE, "--notification-channel", "1")), gcloud)
    exported = monitoring.policies[FAILED]["notificationChannels"]
    monitoring.policies[FAILED].update(enabled=False, notificationChannels=CHANNELS[1:])
    monkeypatch.setattr(alerts, "AUTO_CLOSE", "3600s")
    script = without_jobs(export("gcloud", *IMAGE))
    run(script, gcloud)
    [updated] = monitoring.policies.values()
    run(script, gcloud, NOTIFICATION_CHANNELS=",".join(CHANNELS))
    [renamed] = monitoring.policies.values()

    assert exported == CHANNELS[:1]
    assert updated["alertStrategy"] == {"autoClose": "3600s"}
    assert (updated["enabled"], updated["notificationChannels"]) == (False, CHANNELS[1:])
    assert (renamed["enabled"], renamed["notificationChannels"]) == (False, CHANNELS)
