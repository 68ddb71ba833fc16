"""Two people act on a run at once, on PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from threading import Barrier, Thread
from typing import Any
from uuid import uuid4

import pytest
from django.db import connections
from django.test import RequestFactory
from pytest_django import Settings

from cloudrun_jobs.dashboard.runs import actions as run_actions
from cloudrun_jobs.dashboard.site import Level, Site
from cloudrun_jobs.http import actions
from cloudrun_jobs.http.authentication import Caller
from cloudrun_jobs.models import JobRun, Status, TaskRun
from cloudrun_jobs.runs import dispatch, handle, reruns
from cloudrun_jobs.signals import run_action
from tests.dashboard.run_pages import Notices, record_run
from tests.servers.routing import records_in

MEETING_TIMEOUT = 60  # seconds


@pytest.fixture(autouse=True)
def _records(postgres: str, settings: Settings, django_db_blocker: Any) -> Iterator[None]:
    """Commit what the threads write."""
    with records_in(postgres, settings, django_db_blocker):
        yield
        connections[postgres].close()


def at_once(site: Site, name: str, run: JobRun, *forms: dict[str, str]) -> list[str]:
    """Post each form to the action, by users of their own at the same time; return where they were redirected."""
    targets = list[str]()

    def send(number: int, fields: dict[str, str]) -> None:
        request = RequestFactory().post("/", fields)
        caller = Caller(fields.get("user", str(number)), frozenset({"read", "run", "cancel"}))
        try:
            response: Any = getattr(run_actions, name)(site, request, caller, run_id=run.pk)
            targets.append(response.url)
        finally:
            connections.close_all()

    threads = [Thread(target=send, args=each) for each in enumerate(forms)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return targets


def meet(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str) -> None:
    """Let two threads reach the function before either of them continues."""
    both, function = Barrier(2), getattr(owner, name)

    def wait_and_call(*args: Any, **options: Any) -> Any:
        both.wait(MEETING_TIMEOUT)
        return function(*args, **options)

    monkeypatch.setattr(owner, name, wait_and_call)


def test_two_people_cancel_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """One of them cancels the run, and both responses say that it is cancelled."""
    meet(monkeypatch, handle, "cancel")
    run, site, audited = record_run(status=Status.PENDING), Notices(), list[str]()

    def collect(action: str, **values: Any) -> None:
        audited.append(action)

    run_action.connect(collect)
    targets = at_once(site, "cancel", run, {}, {})
    run_action.disconnect(collect)

    run.refresh_from_db()
    assert (run.status, targets, audited) == (Status.CANCELLED, [f"/run/{run.pk}"] * 2, ["cancel"])
    assert {message for _, message in site.notices} == {"The run is cancelled."}


def test_form_is_sent_twice_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """One run is started, and both submissions lead to it."""
    meet(monkeypatch, dispatch, "record")
    run, site, form = record_run("echo"), Notices(), {"key": str(uuid4()), "user": "mina"}
    targets = at_once(site, "rerun", run, form, form)

    new = JobRun.objects.exclude(pk=run.pk).get()
    assert targets == [f"/run/{new.pk}"] * 2


@pytest.mark.parametrize("user", ["mina", "yuki"])
def test_what_failed_is_rerun_twice_at_once(monkeypatch: pytest.MonkeyPatch, user: str) -> None:
    """One run repeats the failed tasks; the second submission of a form leads to it, another form says so."""
    meet(monkeypatch, reruns, "claim")
    run, site, key = record_run("echo", tasks=1, status=Status.FAILED), Notices(), str(uuid4())
    TaskRun.objects.filter(run=run).update(status=Status.FAILED)
    forms = ({"key": key, "user": each, "failed_only": "1"} for each in ("mina", user))
    targets = at_once(site, "rerun", run, *forms)

    new = JobRun.objects.exclude(pk=run.pk).get()
    expected = {"mina": [f"/run/{new.pk}"] * 2, "yuki": sorted([f"/run/{new.pk}", f"/run/{run.pk}"])}
    assert sorted(targets) == expected[user]
    assert sum("another run already repeats" in message for _, message in site.notices) == (user == "yuki")


def test_run_that_is_deleted_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    """A record that disappears between the look and the action is a notice."""
    run, site = record_run("echo", status=Status.RUNNING), Notices()
    cancel = actions.cancel

    def delete_and_cancel(caller: Caller, run: JobRun) -> bool:
        JobRun.objects.filter(pk=run.pk).delete()
        return cancel(caller, run)

    monkeypatch.setattr(actions, "cancel", delete_and_cancel)

    assert at_once(site, "cancel", run, {}) == ["/runs"]
    assert [level for level, _ in site.notices] == [Level.WARNING]
