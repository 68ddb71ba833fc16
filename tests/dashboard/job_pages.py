"""What tests of the pages of jobs share: records, locks, and the text of a page."""

from __future__ import annotations

import html
import re
from typing import Any

from django.test import Client
from django.urls import reverse

from cloudrun_jobs import conf
from cloudrun_jobs.locks import current, names
from cloudrun_jobs.locks.base import Grant, Owner
from cloudrun_jobs.models import JobRun

NIGHTLY = {"schedule": "0 3 * * *"}


def url(name: str, *arguments: Any) -> str:
    return reverse(f"cloudrun_jobs:dashboard_{name}", args=arguments)


def record(command: str, **values: Any) -> JobRun:
    given = {"environment": conf.load().environment, "trigger": "delay", **values}
    return JobRun.objects.create(command=command, **given)


def hold(command: str, holder: str = "nightly-x7k2p", *, slots: int = 1) -> Grant:
    """Acquire a slot of the job's lock for an execution."""
    grant = current().acquire(names.for_job(command), slots, Owner(holder=holder, nonce=holder), 60)
    assert isinstance(grant, Grant)
    return grant


def text_of(response: Any) -> str:
    """Return what a reader of the page sees below its heading, in one line."""
    content = response.content.decode().partition("<main")[2].partition("</main>")[0]
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", content)).split())


def row_of(response: Any, command: str) -> str:
    """Return the text of the row of a job."""
    row = next(row for row in response.content.decode().split("</tr>") if f">{command}<" in row)
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", row.rpartition("<tr>")[2])).split())


def page(client: Client, name: str, *arguments: Any, query: str = "") -> Any:
    response = client.get(f"{url(name, *arguments)}{query}")
    assert response.status_code == 200
    return response
