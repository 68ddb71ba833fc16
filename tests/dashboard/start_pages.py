"""What tests of the form that starts a job share: a job with given arguments, users, and posted forms."""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock
from uuid import uuid4

from django.contrib.auth.models import Permission, User
from django.core.management.base import CommandParser
from django.test import Client, override_settings
from django.urls import reverse

from cloudrun_jobs import CloudRunJobs
from tests.jobs.management.commands import everything

JOB = "everything"
SESSION = {"ENVIRONMENT": "test", "HTTP": {"SESSION": True}}
AddArguments = Callable[[CommandParser], object]


def sign_in(*permissions: str, name: str = "mina", **options: Any) -> Client:
    """Return the client of a member of staff with these permissions."""
    user = User.objects.create_user(name, is_staff=True)
    user.user_permissions.add(*Permission.objects.filter(codename__in=permissions))
    client = Client(**options)
    client.force_login(user)
    return client


@contextmanager
def job_with(*declared: AddArguments, **attributes: Any) -> Iterator[list[dict[str, Any]]]:
    """Replace the job by one with these arguments and attributes; return what `run()` receives, call by call."""
    received = list[dict[str, Any]]()

    def add_arguments(command: Any, parser: CommandParser) -> None:
        for add in declared:
            add(parser)

    def run(command: Any, *args: Any, **options: Any) -> None:
        received.append({name: value for name, value in options.items() if name not in DJANGO})

    values = {"__module__": everything.__name__, "add_arguments": add_arguments, "run": run, **attributes}
    command = type("Command", (CloudRunJobs,), values)
    with mock.patch.object(everything, "Command", command), override_settings(CLOUDRUN_JOBS=SESSION):
        yield received


DJANGO = {"verbosity", "settings", "pythonpath", "traceback", "no_color", "force_color", "skip_checks"}


def argument(*names: str, **options: Any) -> AddArguments:
    """Return what adds an argument to a parser."""
    return lambda parser: parser.add_argument(*names, **options)


def start_url(*subcommands: str, command: str = JOB) -> str:
    query = "&".join(f"subcommand={name}" for name in subcommands)
    return reverse("cloudrun_jobs:dashboard_start", args=[command]) + f"?{query}" * bool(query)


def values_of(*subcommands: str, **values: Any) -> dict[str, Any]:
    """Return the body of a form with these values, by the dest of the argument."""
    return {"key": str(uuid4()), **{f"option-{name}": value for name, value in values.items()}}


def post(client: Client, *subcommands: str, **values: Any) -> Any:
    return client.post(start_url(*subcommands), values_of(**values))


def text_of(response: Any) -> str:
    """Return what a reader of the page sees below its heading, in one line."""
    content = response.content.decode().partition("<main")[2].partition("</main>")[0]
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", content)).split())


def error_of(response: Any, dest: str) -> str:
    """Return the errors at the field of an argument."""
    found = re.search(rf'id="id_option-{dest}_error">(.*?)</ul>', response.content.decode(), re.DOTALL)
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", found[1])).split()) if found else ""
