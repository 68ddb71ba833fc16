"""Call a command and collect its result."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from io import StringIO
from typing import Any

from django.core.management import call_command
from django.core.management.base import CommandError

from cloudrun_jobs.emulator import Emulator

REGION = "europe-west4"
PLACE = f"projects/acme/locations/{REGION}"
ACCOUNT = "scheduler@acme.iam.gserviceaccount.com"


@dataclass(frozen=True)
class Synced:
    """The lines on stdout, the text on stderr and of the error, the exit status, and the calls of the API."""

    lines: list[str]
    messages: str
    status: int
    calls: Counter[str]

    @property
    def data(self) -> Any:
        return json.loads("\n".join(self.lines))


Sync = Callable[..., Synced]


class Terminal(StringIO):
    def isatty(self) -> bool:
        return True


def sync(
    command: str, emulator: Emulator, *args: str, stderr: StringIO | None = None, skip_checks: bool = True
) -> Synced:
    stdout, stderr, status, messages = StringIO(), stderr or StringIO(), 0, ""
    emulator.calls.clear()
    try:
        call_command(command, *args, stdout=stdout, stderr=stderr, skip_checks=skip_checks)
    except CommandError as error:
        status, messages = error.returncode, str(error)
    except SystemExit as leaving:
        status = int(leaving.code or 0)
    lines = [line.strip() for line in stdout.getvalue().splitlines()]
    return Synced(lines, stderr.getvalue() + messages, status, Counter(emulator.calls))
