"""A form that is sent twice at once, with the run records in PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import Any
from uuid import UUID

import pytest
from django.db import connections
from django.http import HttpResponse
from django.test import RequestFactory
from pytest_django import Settings

from cloudrun_jobs.dashboard.site import Level, Page, Site
from cloudrun_jobs.dashboard.start import pages as starting
from cloudrun_jobs.http.authentication import Caller
from cloudrun_jobs.models import JobRun
from tests.dashboard.start_pages import JOB, argument, job_with, values_of
from tests.servers.routing import records_in

CALLER = Caller("mina", frozenset({"read", "run"}))
MAX_WAIT = 30.0  # seconds


class Notices(Site):
    """A site that keeps its notices."""

    def __init__(self) -> None:
        self.levels = list[Level]()

    def url(self, name: str, *arguments: str | UUID) -> str:
        return "/".join([name, *map(str, arguments)])

    def caller(self, request: Any) -> Caller: ...

    def render(self, request: Any, page: Page) -> HttpResponse: ...

    def notify(self, request: Any, level: Level, message: str) -> None:
        self.levels.append(level)


@pytest.fixture(autouse=True)
def _records(postgres: str, settings: Settings, django_db_blocker: Any) -> Iterator[None]:
    with records_in(postgres, settings, django_db_blocker):
        yield


def test_form_that_is_sent_twice_at_once_starts_one_run() -> None:
    """One request starts the run, and the other one shows it while it is in progress."""
    site, body, has_ended = Notices(), values_of(x="a"), Event()

    def run(command: Any, *args: Any, **options: Any) -> bool:
        return has_ended.wait(MAX_WAIT)  # Of the other request.

    def send() -> str:
        try:
            response: Any = starting.start(site, RequestFactory().post("/", body), CALLER, command=JOB)
            return str(response.url)
        finally:
            has_ended.set()
            connections.close_all()

    with job_with(argument("--x"), run=run), ThreadPoolExecutor() as threads:
        urls = [future.result() for future in [threads.submit(send) for _ in range(2)]]

    recorded = JobRun.objects.get()
    assert urls == [f"run/{recorded.pk}"] * 2
    assert recorded.result is True
    assert site.levels == [Level.WARNING, Level.SUCCESS]
