"""A job moves from Cloud Run to Celery by a setting, while it is in use."""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from django.db import connections
from pytest_django import Settings

from cloudrun_jobs.emulator import Emulator
from cloudrun_jobs.models import JobRun, Status
from tests.celery_workers.cluster import ROOT, Cluster, ended
from tests.celery_workers.conftest import BACKEND, JOBS
from tests.celery_workers.project.management.commands.step import Command
from tests.emulator.cloud import PLACE, job
from tests.emulator.fixtures import cloudrun_emulator, cloudrun_emulator_options

__all__ = ["cloudrun_emulator", "cloudrun_emulator_options"]

pytestmark = pytest.mark.faults

RUNS = 16
BEFORE = 6  # Runs that Cloud Run gets; then the setting changes.


@pytest.fixture
def two_engines(cluster: Cluster, cloudrun_emulator: Emulator, settings: Settings) -> dict[str, Any]:
    """Return settings with Cloud Run, to which the job is deployed, and with Celery."""
    cluster.start("prefork")
    environment = {
        "PYTHONPATH": str(ROOT),
        "DJANGO_SETTINGS_MODULE": "tests.celery_workers.project.settings",
        "CELERY_TEST_SETTINGS": json.dumps(cluster.given),
        "JOURNAL": str(cluster.journal),
        "PATH": os.environ["PATH"],
    }
    declared = job(sys.executable, "-m", "django", env=environment)
    cloudrun_emulator.clients.jobs.create_job(parent=PLACE, job=declared, job_id="step-production").result()
    celery = {"BACKEND": BACKEND, "OPTIONS": JOBS["OPTIONS"]}
    options = {"endpoint": cloudrun_emulator.grpc, "runs_per_minute": 10_000}
    place = {name: JOBS[name] for name in ("ENVIRONMENT", "PROJECT", "REGION")}
    configured: dict[str, Any] = {**place, "OPTIONS": options, "BACKENDS": {"celery": celery}}
    settings.CLOUDRUN_JOBS = configured
    return configured


def test_nothing_is_lost_or_done_twice(
    cluster: Cluster, two_engines: dict[str, Any], settings: Settings, postgres: str
) -> None:
    """Callers continue while `ROUTES` changes: each run is done once, on the backend that it was sent to."""

    def request(number: int) -> str:
        if number == BEFORE:
            settings.CLOUDRUN_JOBS = {**two_engines, "ROUTES": {"st*": "celery"}}
        run_id = Command().delay(seconds=number / 1000).run_id  # Equal runs would be skipped.
        connections[postgres].close()
        return run_id

    with ThreadPoolExecutor(4) as callers:
        ids = list(callers.map(request, range(RUNS)))

    runs = [ended(JobRun(pk=run_id), 120) for run_id in ids]
    assert {(run.status, run.result) for run in runs} == {(Status.SUCCEEDED, "attempt 1")}
    assert {tuple(cluster.events(run)) for run in runs} == {("begin", "end")}
    counts = Counter(run.backend for run in runs)
    assert counts.keys() == {"", "celery"}
    assert counts["celery"] >= RUNS - BEFORE - 4
    assert Path(cluster.journal).read_text().count("begin") >= RUNS
