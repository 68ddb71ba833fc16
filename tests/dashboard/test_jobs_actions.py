"""Pause and resume the schedules of a job, and release its locks."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any
from unittest import mock

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.contenttypes.models import ContentType
from django.test import Client
from django.urls import reverse
from google.cloud.scheduler_v1 import CloudSchedulerClient
from pytest_django import Settings

from cloudrun_jobs import Schedule
from cloudrun_jobs.emulator import Emulator
from cloudrun_jobs.locks import current, names
from cloudrun_jobs.locks.base import Grant, Owner
from cloudrun_jobs.models.jobs import Job
from tests.dashboard.conftest import Declare, SignIn
from tests.dashboard.job_pages import NIGHTLY, hold, record, text_of, url
from tests.dashboard.test_jobs import synced
from tests.deploy.commands import PLACE
from tests.servers.process import free_port

TWO = {"schedule": [Schedule("0 3 * * *", name="early"), Schedule("0 9 * * *", name="late")]}
POSTS = ("pause", "resume", "release_lock")


def post(client: Client, name: str, command: str = "nightly", **data: Any) -> str:
    """Post the form, and return the text of the page that follows."""
    response = client.post(url(name, command), data, follow=True)
    assert response.redirect_chain[0][1] == 302
    return text_of(response)


def slot(grant: Grant) -> dict[str, Any]:
    return {"lock": grant.lock, "slot": grant.slot, "token": grant.token}


def is_held(grant: Grant) -> bool:
    return current().renew(grant, 60)


def states(emulator: Emulator, *schedules: str) -> list[str]:
    names = (f"{PLACE}/jobs/nightly-production-{schedule}" for schedule in schedules)
    return [emulator.clients.scheduler.get_job(name=name).state.name for name in names]


def history(client: Client) -> list[tuple[str, str, str]]:
    """Return what the admin's history of jobs says: who did what to which job."""
    job = ContentType.objects.get_for_model(Job, for_concrete_model=False)
    entries = LogEntry.objects.filter(content_type=job).order_by("pk")
    return [(each.user.get_username(), each.object_id, each.change_message) for each in entries]


@pytest.fixture
def two(cloud: dict[str, Any], emulator: Emulator, declare: Declare) -> Emulator:
    """An emulator with the two schedules of a job."""
    declare(nightly=TWO)
    synced(emulator)
    return emulator


def test_pause_and_resume(operator: Client, two: Emulator, caplog: pytest.LogCaptureFixture) -> None:
    """All schedules change; the page shows the state, the log and the history of the job say who did it."""
    caplog.set_level(logging.INFO, "cloudrun_jobs")
    paused = post(operator, "pause")
    paused_states = states(two, "early", "late")
    resumed = post(operator, "resume")

    both = "nightly-production-early, nightly-production-late"
    assert (paused_states, states(two, "early", "late")) == (["PAUSED"] * 2, ["ENABLED"] * 2)
    assert f"Paused: {both}." in paused
    assert f"Resumed: {both}." in resumed
    assert "Resume all schedules" in paused
    assert "Pause all schedules" not in paused
    assert "not paused" in resumed
    assert history(operator) == [
        ("operator", "nightly", f"Paused {both}."),
        ("operator", "nightly", f"Resumed {both}."),
    ]
    assert [each.getMessage() for each in caplog.records if getattr(each, "action", "") == "job_action"] == [
        f"Job nightly: pause of {both} by operator",
        f"Job nightly: resume of {both} by operator",
    ]


def test_repeated_pause_changes_nothing(operator: Client, two: Emulator) -> None:
    """The message says what is so already; the history does not repeat it."""
    post(operator, "pause")
    text = post(operator, "pause")

    assert "Already paused: nightly-production-early, nightly-production-late." in text
    assert two.calls["CloudScheduler.PauseJob"] == 2
    assert len(history(operator)) == 1


def test_two_people_pause_at_once(operator: Client, two: Emulator) -> None:
    """Another person pauses the schedule after it was found enabled: it is paused, and that is no error."""
    pause_job = CloudSchedulerClient.pause_job

    def late(self: CloudSchedulerClient, **options: Any) -> Any:
        pause_job(self, **options)
        return pause_job(self, **options)

    with mock.patch.object(CloudSchedulerClient, "pause_job", late):
        text = post(operator, "pause")

    assert "Already paused: nightly-production-early, nightly-production-late." in text
    assert states(two, "early", "late") == ["PAUSED"] * 2


def test_error_of_one_schedule(operator: Client, two: Emulator) -> None:
    """The others are changed; the error is shown, and recorded is what was done."""
    two.faults.fail("CloudScheduler.PauseJob", "PERMISSION_DENIED", times=1)
    text = post(operator, "pause")

    assert states(two, "early", "late") == ["ENABLED", "PAUSED"]
    assert "Paused: nightly-production-late." in text
    assert "Grant cloudscheduler.jobs.pause" in text
    assert history(operator)[0][2] == "Paused nightly-production-late."


def test_service_that_is_away(operator: Client, cloud: dict[str, Any], declare: Declare) -> None:
    """The error is a notice, and the page works."""
    declare(nightly=NIGHTLY)
    cloud["endpoint"] = f"127.0.0.1:{free_port()}"
    text = post(operator, "pause")

    assert "No server listens at" in text
    assert "Every day at 03:00" in text
    assert not history(operator)


REFUSED = {
    "no cloud": ("test", NIGHTLY),
    "no schedule": ("production", {}),
    "another backend": ("production", {**NIGHTLY, "backend": "celery"}),
}


@pytest.mark.parametrize(("environment", "attributes"), REFUSED.values(), ids=REFUSED)
def test_schedule_of_another_kind_cannot_be_paused(
    operator: Client,
    cloud: dict[str, Any],
    emulator: Emulator,
    settings: Settings,
    declare: Declare,
    environment: str,
    attributes: dict[str, Any],
) -> None:
    """There is no button, and a request says why nothing changes."""
    celery = {"BACKEND": "cloudrun_jobs.backends.celery.CeleryBackend", "OPTIONS": {"app": "x", "queues": ["y"]}}
    settings.CLOUDRUN_JOBS = {**settings.CLOUDRUN_JOBS, "ENVIRONMENT": environment, "BACKENDS": {"celery": celery}}
    declare(nightly=attributes)

    assert "Cloud Scheduler does not start the job nightly" in post(operator, "pause")
    assert "Pause all schedules" not in text_of(operator.get(url("job", "nightly")))
    assert not emulator.calls


@pytest.mark.parametrize("action", ["pause", "resume"])
def test_job_that_was_removed_meanwhile(
    operator: Client, cloud: dict[str, Any], emulator: Emulator, declare: Declare, action: str
) -> None:
    """The list of jobs says so, and nothing was called."""
    declare()
    text = post(operator, action, "nightly")

    assert "The job nightly is no longer declared, so its schedules were not changed." in text
    assert not emulator.calls


KINDS = {
    "local": lambda request: {"BACKEND": "cloudrun_jobs.locks.local.LocalLocks"},
    "redis": lambda request: {
        "BACKEND": "cloudrun_jobs.locks.redis.RedisLocks",
        "OPTIONS": {"url": request.getfixturevalue("redis_url")},
    },
    "database": lambda request: {"BACKEND": "cloudrun_jobs.locks.database.DatabaseLocks"},
}


@pytest.fixture
def command(request: pytest.FixtureRequest, declare: Declare) -> str:
    """A job of this test: servers keep the locks of others."""
    name = f"job_{abs(hash(request.node.nodeid))}"
    declare(**{name: NIGHTLY})
    return name


@pytest.mark.parametrize("kind", KINDS)
def test_lock_is_released(
    request: pytest.FixtureRequest, operator: Client, settings: Settings, command: str, kind: str
) -> None:
    """With the locks of its tasks; the message and the history name the holder."""
    locks: Callable[[Any], Any] = KINDS[kind]
    settings.CLOUDRUN_JOBS = {**settings.CLOUDRUN_JOBS, "LOCKS": locks(request)}
    run = record(command, execution="nightly-x7k2p")
    grant = hold(command)
    task = current().acquire(names.for_job(command).part("0/3", "[3]"), 1, Owner(holder="a", nonce="b"), 60)
    shown = operator.get(url("job", command)).content.decode()
    text = post(operator, "release_lock", command, **slot(grant))

    assert f'name="token" value="{grant.token}"' in shown
    assert url("run", run.pk) in shown
    assert f"The lock {command}, which nightly-x7k2p held, is released." in text
    assert "No lock of the job is held." in text
    assert isinstance(task, Grant)
    assert not current().holders(grant.lock)
    assert history(operator) == [("operator", command, f"Released the lock {command} (nightly-x7k2p).")]
    current().close()


def test_holder_that_has_changed_keeps_the_lock(operator: Client, command: str) -> None:
    """The message names the present holder, and nothing is released."""
    stale = hold(command)
    current().release(stale)
    grant = hold(command, "nightly-other")
    text = post(operator, "release_lock", command, **slot(stale))

    assert f"Nothing was released: the lock {command} has another holder, nightly-other since" in text
    assert is_held(grant)
    assert not history(operator)


def test_two_people_release_at_once(operator: Client, sign_in: SignIn, command: str) -> None:
    """The second of them reads that the lock is no longer held."""
    grant = hold(command)
    other = sign_in("view_jobrun", "run_job", name="other")

    assert "is released." in post(other, "release_lock", command, **slot(grant))
    assert "Nothing was released: the lock is no longer held." in post(
        operator, "release_lock", command, **slot(grant)
    )
    assert [user for user, _, _ in history(operator)] == ["other"]


def test_release_that_loses_the_race(operator: Client, command: str) -> None:
    """The holder changes between the look at it and the release: the new one keeps the lock."""
    stale = hold(command)
    release_slot = type(current()).release_slot

    def late(self: Any, *given: Any) -> bool:
        self.release(stale)
        hold(command, "nightly-other")
        return release_slot(self, *given)

    with mock.patch.object(type(current()), "release_slot", late):
        text = post(operator, "release_lock", command, **slot(stale))

    assert "has another holder, nightly-other since" in text


FORMS: dict[str, Callable[[Grant], dict[str, Any]]] = {
    "empty": lambda grant: {},
    "no token": lambda grant: {**slot(grant), "token": ""},
    "no number": lambda grant: {**slot(grant), "slot": "x", "token": "<b>"},
    "zeros": lambda grant: {**slot(grant), "token": f"0{grant.token}"},
    "NUL": lambda grant: {**slot(grant), "lock": "a\0b"},
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_malformed_form_releases_nothing(
    operator: Client, command: str, form: Callable[[Grant], dict[str, Any]]
) -> None:
    grant = hold(command)
    text = post(operator, "release_lock", command, **form(grant))

    assert "Nothing was released" in text
    assert is_held(grant)


def test_lock_of_another_job_is_not_released(operator: Client, command: str) -> None:
    """The form of a job releases locks of that job."""
    grant = hold("other")

    assert "Nothing was released" in post(operator, "release_lock", command, **slot(grant))
    assert is_held(grant)


def test_lock_of_a_job_that_is_gone(operator: Client, declare: Declare) -> None:
    """It can be released, as long as the job has runs."""
    declare()
    record("nightly")
    grant = hold("nightly")

    assert "is released." in post(operator, "release_lock", "nightly", **slot(grant))


def test_lock_server_that_is_away(operator: Client, settings: Settings, command: str) -> None:
    """The error is a notice."""
    locks = {
        "BACKEND": "cloudrun_jobs.locks.redis.RedisLocks",
        "OPTIONS": {"url": f"redis://127.0.0.1:{free_port()}"},
    }
    settings.CLOUDRUN_JOBS = {**settings.CLOUDRUN_JOBS, "LOCKS": locks}

    assert "Connection refused" in post(operator, "release_lock", command, lock="a", slot="0", token="1")


@pytest.mark.parametrize("permission", ["view_jobrun", "run_job"])
@pytest.mark.parametrize("base", ["cloudrun_jobs:dashboard", "admin:cloudrun_jobs"])
@pytest.mark.parametrize("action", POSTS)
def test_actions_need_both_permissions(
    sign_in: SignIn, command: str, action: str, base: str, permission: str
) -> None:
    """A user needs the permissions to see runs and to start them, in the dashboard and in the admin."""
    grant = hold(command)
    address = reverse(f"{base}_{action}", args=[command])

    assert sign_in(permission).post(address, slot(grant)).status_code == 403
    assert is_held(grant)


@pytest.mark.parametrize("action", POSTS)
def test_get_changes_nothing(operator: Client, command: str, action: str) -> None:
    grant = hold(command)

    assert operator.get(url(action, command), slot(grant)).status_code == 405
    assert is_held(grant)


@pytest.mark.parametrize("action", POSTS)
def test_forged_request_is_rejected(operator: Client, command: str, action: str) -> None:
    """A POST without the token of the form."""
    operator.handler.enforce_csrf_checks = True
    grant = hold(command)

    assert operator.post(url(action, command), slot(grant)).status_code == 403
    assert is_held(grant)
