"""The flow of the guide on the emulator: save the token, deploy, run once manually, then every twelve hours."""

from __future__ import annotations

import os
import signal
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from io import StringIO
from pathlib import Path
from shutil import copyfile
from typing import Any

import pytest
from django.core.management import call_command
from google.cloud import run_v2
from pytest_django import Settings

from cloudrun_jobs import secrets
from cloudrun_jobs.emulator import Emulator
from cloudrun_jobs.exceptions import SecretUnavailable
from cloudrun_jobs.secrets import manager
from partner import SECRET
from partner.server import Partner, serve
from tests.emulator.gcloud_cli import NEEDS_GCLOUD, Gcloud
from tests.waiting import wait_for

PROJECT = Path(__file__).resolve().parents[2] / "example_project"
REGION = "asia-northeast1"
PARENT = f"projects/acme/locations/{REGION}"
NAME = "refresh-partner-token-production"
ONLY = ("--command", "refresh_partner_token")
DEPLOYED_AT = datetime(2026, 11, 26, 5, tzinfo=UTC)  # 14:00 in Tokyo.


@dataclass
class Flow:
    """The cloud, the partner and the database of the jobs."""

    emulator: Emulator
    partner: Partner
    database: Path

    def run_until_partner_hangs(self) -> None:
        """Start an execution, and return when it waits for the partner."""
        self.partner.hang(times=3)
        self.run()
        wait_for(lambda: len(self.partner.planned) < 3)

    def run(self) -> str:
        """Start the job without arguments, as the console's button does; return the execution."""
        job = run_v2.RunJobRequest(name=f"{PARENT}/jobs/{NAME}")
        name: str = self.emulator.clients.jobs.run_job(job).metadata.name
        return name

    def advance(self, **time: int) -> None:
        """Let time pass in the cloud. The database has a clock of its own: there, the records become older."""
        by = timedelta(**time)
        age = f"-{by.total_seconds():.0f} seconds"
        columns = ", ".join(f"{name} = datetime({name}, '{age}')" for name in ("created_at", "scheduled_for"))
        with closing(sqlite3.connect(self.database)) as connection, connection:
            connection.execute(f"UPDATE cloudrun_jobs_jobrun SET {columns}")
        self.emulator.clock.advance(by)

    def executions(self) -> list[run_v2.Execution]:
        found = self.emulator.clients.executions.list_executions(parent=f"{PARENT}/jobs/{NAME}")
        return sorted(found, key=lambda each: each.create_time)

    def finished(self, count: int) -> list[run_v2.Execution]:
        """Wait for this number of executions and return them."""

        def ended() -> list[run_v2.Execution]:
            found = [each for each in self.executions() if each.completion_time]
            return found if len(found) >= count else []

        return wait_for(ended, 60)

    def task(self) -> int:
        """Return the process id of the task that runs."""

        def found() -> list[Path]:
            processes = (path for path in Path("/proc").iterdir() if path.name.isdecimal())
            return [path for path in processes if _is_task(path, self.database)]

        return int(wait_for(found)[0].name)

    def records(self) -> list[tuple[Any, ...]]:
        query = "SELECT status, reason, `trigger`, result FROM cloudrun_jobs_jobrun ORDER BY created_at"
        with closing(sqlite3.connect(self.database)) as connection:
            return connection.execute(query).fetchall()

    def output(self) -> list[str]:
        """Return the messages of the tasks' log entries, which are JSON or text."""
        found = (entry for entry in self.emulator.logs.all() if "%2Fstd" in entry.log_name)
        return [str(dict(entry.json_payload).get("message") or entry.text_payload) for entry in found]

    def versions(self) -> dict[int, str]:
        found = self.emulator.clients.secrets.list_secret_versions(parent=f"projects/acme/secrets/{SECRET}")
        return {int(each.name.rpartition("/")[2]): each.state.name for each in found}

    def token(self, version: str = "latest") -> str:
        name = f"projects/acme/secrets/{SECRET}/versions/{version}"
        return self.emulator.clients.secrets.access_secret_version(name=name).payload.data.decode()


def _is_task(process: Path, database: Path) -> bool:
    try:
        command, environment = ((process / name).read_bytes() for name in ("cmdline", "environ"))
    except OSError:  # It has ended.
        return False
    return b"refresh_partner_token" in command and str(database).encode() in environment


@pytest.fixture
def flow(migrated: Path, tmp_path: Path, settings: Settings) -> Iterator[Flow]:
    """A production environment on the emulator, and a partner server."""
    database = tmp_path / "example.sqlite3"
    copyfile(migrated, database)
    with Emulator(directory=PROJECT) as emulator, serve() as partner:
        emulator.clock.freeze(DEPLOYED_AT)
        settings.PARTNER_URL = partner.url
        variables = {
            "EXAMPLE_DATABASE": str(database),
            "EXAMPLE_PARTNER_URL": partner.url,
            "EXAMPLE_SECRET_KEY": "only for tests",
        }
        settings.CLOUDRUN_JOBS = {
            "ENVIRONMENT": "production",
            "PROJECT": "acme",
            "REGION": REGION,
            "OPTIONS": {"endpoint": emulator.grpc, "service_account": "app-jobs@acme.iam.gserviceaccount.com"},
            "DEFAULTS": {"image": "example", "env_vars": variables},
        }
        yield Flow(emulator, partner, database)


@pytest.fixture
def deployed(flow: Flow, monkeypatch: pytest.MonkeyPatch) -> Flow:
    """The flow after its first two steps: the token is saved, and the job and its schedule are deployed."""
    monkeypatch.setattr("sys.stdin", StringIO(flow.partner.token))
    call_command("save_partner_token", stdout=StringIO())
    for command in ("sync_cloudrun_jobs", "sync_cloudrun_schedules"):
        call_command(command, *ONLY, stdout=StringIO(), skip_checks=True)
    return flow


@pytest.mark.faults
def test_guide(deployed: Flow) -> None:
    """Deployment runs nothing; a manual run and the ticks at 0:00 and 12:00 in Tokyo rotate the token."""
    flow, tokens = deployed, [deployed.partner.token]
    at_deployment = flow.executions()
    flow.run()
    flow.finished(1)
    tokens.append(flow.partner.token)
    for count, hours in ((2, 10), (3, 12)):  # To 0:00 and to 12:00.
        flow.advance(hours=hours, seconds=10)
        flow.finished(count)
        tokens.append(flow.partner.token)

    assert at_deployment == []
    assert [each.succeeded_count for each in flow.executions()] == [1, 1, 1]
    assert len(set(tokens)) == 4
    assert (flow.token(), flow.token("3")) == (tokens[3], tokens[2])
    assert flow.versions() == {1: "DISABLED", 2: "DISABLED", 3: "ENABLED", 4: "ENABLED"}
    assert [(status, reason, trigger) for status, reason, trigger, _ in flow.records()] == [
        ("succeeded", "", "manual"),
        ("succeeded", "", "schedule"),
        ("succeeded", "", "schedule"),
    ]
    assert [line for line in flow.output() if "has version" in line] == [
        f"partner-token has version {number}." for number in (2, 3, 4)
    ]
    assert not [line for line in flow.output() for token in tokens if token in line]


@pytest.mark.faults
def test_overlapping_run_is_skipped(deployed: Flow) -> None:
    """While one run waits for the partner, a second one exits without a request."""
    flow = deployed
    flow.run_until_partner_hangs()
    flow.run()
    flow.finished(1)
    flow.partner.release.set()
    flow.finished(2)

    assert flow.partner.issued == [flow.partner.token] == [flow.token()]
    assert [each.succeeded_count for each in flow.executions()] == [1, 1]
    assert sorted(status for status, *_ in flow.records()) == ["skipped", "succeeded"]


@pytest.mark.faults
def test_killed_run_loses_nothing(deployed: Flow) -> None:
    """If the process is killed before it gets the new token, the next attempt gets the same one."""
    flow = deployed
    flow.run_until_partner_hangs()
    os.kill(flow.task(), signal.SIGKILL)
    flow.partner.release.set()
    [execution] = flow.finished(1)

    assert (execution.succeeded_count, execution.retried_count) == (1, 1)
    assert flow.partner.issued == [flow.partner.token] == [flow.token()]
    assert flow.versions() == {1: "ENABLED", 2: "ENABLED"}


def test_unavailable_secret_manager(deployed: Flow, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the update fails after the response, the old token stays; the next run gets the same new one."""
    flow, first = deployed, deployed.partner.token
    flow.emulator.faults.fail("SecretManagerService.AddSecretVersion", times=None)
    with monkeypatch.context() as patch:
        patch.setattr(manager, "WAIT_SECONDS", 0.3)
        with pytest.raises(SecretUnavailable):
            call_command("refresh_partner_token", stdout=StringIO())
    rotated, saved = flow.partner.token, flow.token()
    flow.emulator.faults.clear()
    call_command("refresh_partner_token", stdout=StringIO())

    assert saved == first != rotated
    assert (flow.partner.token, flow.token(), secrets.read(SECRET)) == (rotated,) * 3
    assert flow.partner.answers == [200, 200]


@NEEDS_GCLOUD
def test_first_run_by_gcloud(deployed: Flow, tmp_path: Path) -> None:
    """`gcloud run jobs execute NAME --region R` runs the job without arguments."""
    flow = deployed
    Gcloud(flow.emulator.http, tmp_path)("run", "jobs", "execute", NAME, "--region", REGION)
    [execution] = flow.finished(1)

    assert execution.succeeded_count == 1
    assert flow.token() == flow.partner.token
