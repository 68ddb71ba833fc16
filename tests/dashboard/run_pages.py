"""What tests of the pages of runs share: records with any content, and requests."""

from __future__ import annotations

import re
from typing import Any
from uuid import UUID, uuid4

from django.http import HttpResponse
from django.test import Client

from cloudrun_jobs.dashboard.site import Level, Page, Site
from cloudrun_jobs.http.authentication import Caller
from cloudrun_jobs.models import JobRun, Status, TaskRun
from tests.dashboard.job_pages import record, url

ALL = ("view_jobrun", "run_job", "cancel_job")


def record_run(command: str = "echo", *, tasks: int = 0, **values: Any) -> JobRun:
    """Record a run that has ended unless `status` says otherwise, with the records of this many tasks."""
    given = {"status": Status.SUCCEEDED, "argv": [command], "task_count": max(tasks, 1), **values}
    run = record(command, **given)
    TaskRun.objects.bulk_create(TaskRun(run=run, index=index, worker=uuid4()) for index in range(tasks))
    return run


def record_task(run: JobRun, index: int = 0, **values: Any) -> TaskRun:
    return TaskRun.objects.create(run=run, index=index, worker=uuid4(), **values)


def post(client: Client, name: str, run: Any, **fields: Any) -> Any:
    """Post the form of an action, and follow the redirect."""
    return client.post(url(name, getattr(run, "pk", run)), fields, follow=True)


def form_of(response: Any, name: str) -> dict[str, str]:
    """Return the hidden fields of the form on the page."""
    form = response.content.decode().partition(f'id="{name}-form"')[2].partition("</form>")[0]
    return dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)"', form))


class Notices(Site):
    """A site that keeps the notices of its users."""

    def __init__(self) -> None:
        self.notices: list[tuple[Level, str]] = []

    def url(self, name: str, *arguments: str | UUID) -> str:
        return "/".join(["", name, *map(str, arguments)])

    def caller(self, request: Any) -> Caller | None:
        return None

    def render(self, request: Any, page: Page) -> HttpResponse:
        return HttpResponse()

    def notify(self, request: Any, level: Level, message: str) -> None:
        self.notices.append((level, message))
