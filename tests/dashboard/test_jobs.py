"""The page that lists the declared jobs."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from pytest_django import Settings

from cloudrun_jobs.emulator import Emulator
from cloudrun_jobs.models import Status
from tests.dashboard.conftest import Declare
from tests.dashboard.job_pages import NIGHTLY, hold, page, record, row_of, text_of, url
from tests.deploy.commands import PLACE, sync
from tests.servers.process import free_port

COMPARE = "Compare with Google Cloud"
MAX_QUERIES = 8  # Those of the session, the user and their permissions apart.


def synced(emulator: Emulator) -> None:
    sync("sync_cloudrun_jobs", emulator)
    sync("sync_cloudrun_schedules", emulator)
    emulator.calls.clear()


def test_each_job_has_a_row(operator: Client, declare: Declare) -> None:
    """With its schedules, its last run and the holder of its lock, both with links, and a link to start it."""
    declare(nightly={**NIGHTLY, "time_zone": "Asia/Seoul"}, plain={})
    tick = {"schedule": "nightly-test", "scheduled_for": timezone.now() - timedelta(days=3)}
    run = record("nightly", trigger="schedule", status=Status.FAILED, execution="nightly-x7k2p", **tick)
    hold("nightly")
    response = page(operator, "jobs")
    row = row_of(response, "nightly")

    assert "Every day at 03:00 0 3 * * * Asia/Seoul next 20" in row
    assert "failed" in row
    assert "nightly-x7k2p since" in row
    assert "overdue since" in row
    assert response.content.decode().count(f'href="{url("run", run.pk)}"') == 2
    assert f'href="{url("start", "nightly")}"' in response.content.decode()
    assert row_of(response, "plain") == "plain Run now plain - - - -"


def test_english_like_schedule_has_no_due_time(reader: Client, declare: Declare) -> None:
    """Only Cloud Scheduler knows when it is due."""
    declare(often={"schedule": "every 2 hours"})

    assert row_of(page(reader, "jobs"), "often") == "often - every 2 hours Asia/Tokyo - -"


def test_project_without_jobs(reader: Client, declare: Declare) -> None:
    declare()

    assert "No command of the installed apps is a job." in text_of(page(reader, "jobs"))


def test_queries_do_not_depend_on_the_number_of_jobs(reader: Client, declare: Declare) -> None:
    """The page of a hundred jobs, each with a run and a held lock, makes the queries of that of five."""
    for number in range(100):
        record(f"job_{number}", execution=f"execution-{number}")
        hold(f"job_{number}", f"execution-{number}")
    counts = []
    for jobs in (5, 100):
        declare(**{f"job_{number}": NIGHTLY for number in range(jobs)})
        page(reader, "jobs")
        with CaptureQueriesContext(connection) as queries:
            page(reader, "jobs")
        counts.append(sum("cloudrun_jobs_" in query["sql"] for query in queries))

    assert counts[0] == counts[1] <= MAX_QUERIES


def test_google_is_called_only_if_asked(
    reader: Client, cloud: dict[str, Any], emulator: Emulator, declare: Declare
) -> None:
    """The page has a button that compares the code with the cloud; then one list of each service is read."""
    declare(nightly=NIGHTLY, plain={})

    assert COMPARE in text_of(page(reader, "jobs"))
    assert not emulator.calls
    page(reader, "jobs", query="?cloud=1")
    assert emulator.calls == {"Jobs.ListJobs": 1, "CloudScheduler.ListJobs": 1}


def test_drift_pauses_and_orphans(
    reader: Client, cloud: dict[str, Any], emulator: Emulator, declare: Declare
) -> None:
    """They are shown with the time of the answer, and the page is no longer polled."""
    declare(nightly=NIGHTLY, gone={})
    synced(emulator)
    emulator.clients.scheduler.pause_job(name=f"{PLACE}/jobs/nightly-production")
    declare(nightly={**NIGHTLY, "timeout": 7})
    response = page(reader, "jobs", query="?cloud=1")
    row = row_of(response, "nightly")

    assert "paused" in row
    assert "The Cloud Run job differs: timeout" in row
    assert f"Compared with Google Cloud at {timezone.localtime():%F}" in text_of(response)
    assert "No command declares these resources" in text_of(response)
    assert "gone-production" in text_of(response)
    assert "data-live-every" not in response.content.decode()


@pytest.mark.parametrize("environment", ["local", "test"])
def test_environment_without_a_cloud_is_not_compared(
    reader: Client, settings: Settings, declare: Declare, environment: str
) -> None:
    settings.CLOUDRUN_JOBS = {**settings.CLOUDRUN_JOBS, "ENVIRONMENT": environment}
    declare(nightly=NIGHTLY)

    assert COMPARE not in text_of(page(reader, "jobs", query="?cloud=1"))


def deny(emulator: Emulator, options: dict[str, Any]) -> None:
    emulator.faults.fail("CloudScheduler.ListJobs", "PERMISSION_DENIED")


def time_out(emulator: Emulator, options: dict[str, Any]) -> None:
    emulator.faults.fail("Jobs.ListJobs", "DEADLINE_EXCEEDED")


def stop(emulator: Emulator, options: dict[str, Any]) -> None:
    options["endpoint"] = f"127.0.0.1:{free_port()}"


def log_out(emulator: Emulator, options: dict[str, Any]) -> None:
    del options["endpoint"]


@pytest.mark.parametrize(
    ("damage", "error"),
    [
        (deny, "Grant cloudscheduler.jobs.list"),
        (time_out, "no response"),
        (stop, "No server listens at"),
        (log_out, "no valid credentials"),
    ],
)
def test_error_of_google_is_shown_in_place(
    reader: Client,
    cloud: dict[str, Any],
    emulator: Emulator,
    declare: Declare,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    damage: Callable[[Emulator, dict[str, Any]], None],
    error: str,
) -> None:
    """The page shows the jobs, and the text of the error with its time."""
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "missing.json"))
    declare(nightly=NIGHTLY)
    damage(emulator, cloud)
    text = text_of(page(reader, "jobs", query="?cloud=1"))

    assert f"The comparison with Google Cloud at {timezone.localtime():%F}" in text
    assert error in text
    assert "Every day at 03:00" in text


def test_invalid_settings_of_the_backend(
    reader: Client, cloud: dict[str, Any], emulator: Emulator, declare: Declare
) -> None:
    """The jobs are shown with the error, and there is nothing to compare."""
    declare(nightly=NIGHTLY)
    cloud["unheard_of"] = 1
    text = text_of(page(reader, "jobs", query="?cloud=1"))

    assert "unheard_of" in text
    assert COMPARE not in text
    assert "Every day at 03:00" in text


def test_command_with_an_error_does_not_hide_the_others(operator: Client, declare: Declare) -> None:
    """Each has its error in its row, and no link to start it."""
    declare(nightly={"schedule": "0 3 * *"}, broken=ImportError("no <module>"), left=SystemExit(3), plain={})
    response = page(operator, "jobs")

    assert "schedule: expected" in row_of(response, "nightly")
    assert "ImportError: no <module>" in row_of(response, "broken")
    assert "SystemExit: 3" in row_of(response, "left")
    assert response.content.decode().count("Run now") == 1
    assert text_of(page(operator, "job", "broken")).count("ImportError: no <module>") == 1


def test_lock_server_that_is_away(reader: Client, settings: Settings, declare: Declare) -> None:
    """Both pages say so, and show the rest."""
    url = f"redis://127.0.0.1:{free_port()}/0"
    locks = {"BACKEND": "cloudrun_jobs.locks.redis.RedisLocks", "OPTIONS": {"url": url}}
    settings.CLOUDRUN_JOBS = {**settings.CLOUDRUN_JOBS, "LOCKS": locks}
    declare(nightly=NIGHTLY)
    texts = [text_of(page(reader, *names)) for names in (("jobs",), ("job", "nightly"))]

    assert all("the holders of locks are unknown: Redis at 127.0.0.1" in text for text in texts)
    assert all("Every day at 03:00" in text for text in texts)


@pytest.mark.parametrize("names", [("jobs",), ("job", "nightly")])
@pytest.mark.parametrize(
    "damage",
    [
        "ALTER TABLE cloudrun_jobs_jobrun RENAME TO cloudrun_jobs_away",
        "ALTER TABLE cloudrun_jobs_jobrun RENAME COLUMN command TO name",
    ],
)
def test_database_without_the_migrations(
    reader: Client, declare: Declare, names: tuple[str, ...], damage: str
) -> None:
    """A page names the command that migrates, also if only the last migrations are missing."""
    declare(nightly=NIGHTLY)
    with connection.cursor() as cursor:
        cursor.execute(damage)

    response = reader.get(url(*names))

    assert response.status_code == 503
    assert "manage.py migrate cloudrun_jobs" in text_of(response)


def test_reader_sees_no_action(reader: Client, operator: Client, declare: Declare) -> None:
    """What needs the permission to run jobs is not shown without it."""
    declare(nightly=NIGHTLY)
    hold("nightly")
    seen = [
        [word in text_of(page(client, *names)) for names in (("jobs",), ("job", "nightly"))]
        for client in (operator, reader)
        for word in ("Run now", "Release")
    ]

    assert seen == [[True, True], [False, True], [False, False], [False, False]]


def test_what_has_a_direction_of_its_own_keeps_it(reader: Client, declare: Declare) -> None:
    """Where a page is written from right to left, the fields of a schedule stay in their order."""
    declare(nightly=NIGHTLY)

    assert '<code dir="ltr">0 3 * * *</code> <bdi>Asia/Tokyo</bdi>' in page(reader, "jobs").content.decode()
    assert '<code dir="ltr">0 3 * * *</code>' in page(reader, "job", "nightly").content.decode()
