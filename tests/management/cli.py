"""Run `manage.py cloudrun_jobs ...` in this process, as from a command line."""

from __future__ import annotations

import json
from typing import Any, NamedTuple
from unittest import mock

import pytest
from django.core.management import ManagementUtility


class Typed(NamedTuple):
    status: int
    out: str
    err: str

    @property
    def data(self) -> Any:
        return json.loads(self.out)

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()


class Cli:
    """Calls the command and returns its exit status and its output."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *argv: str) -> Typed:
        self._capsys.readouterr()
        status = 0
        # Django closes the connections at the end of a command, and with them the transaction of the test.
        with mock.patch("django.core.management.base.connections"):
            try:
                ManagementUtility(["manage.py", "cloudrun_jobs", *argv]).execute()
            except SystemExit as exit_:
                status = int(exit_.code or 0)
        return Typed(status, *self._capsys.readouterr())
