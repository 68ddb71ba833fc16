"""`cloudrun_exec` runs the command that a container's arguments name with hyphens."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest

from cloudrun_jobs.management.commands import cloudrun_exec
from tests.management.test_process import manage


class Utility:
    """Records the command line instead of running it."""

    def __init__(self, argv: list[str]) -> None:
        self.argv = argv

    def execute(self) -> None:
        raise SystemExit(json.dumps(self.argv))


@pytest.mark.parametrize(
    ("given", "started"),
    [
        (["refresh-token", "--note=a-b"], ["refresh_token", "--note=a-b"]),
        (["refresh_token"], ["refresh_token"]),
        (["very-name", "--", "-x"], ["very-name", "--", "-x"]),
        (["no-such-command"], ["no_such_command"]),
    ],
)
def test_hyphens_of_the_name_alone_become_underscores(
    monkeypatch: pytest.MonkeyPatch, given: list[str], started: list[str]
) -> None:
    """A command with that exact name takes precedence; arguments stay as they are."""
    monkeypatch.setattr(cloudrun_exec, "get_commands", lambda: {"very-name": "app", "refresh_token": "app"})
    monkeypatch.setattr(cloudrun_exec, "ManagementUtility", Utility)
    monkeypatch.setattr(sys, "argv", sys.argv)
    with pytest.raises(SystemExit) as leaving:
        cloudrun_exec.Command().run_from_argv(["manage.py", "cloudrun_exec", *given])

    assert json.loads(str(leaving.value.code)) == ["manage.py", *started]


@pytest.mark.usefixtures("process_database")
@pytest.mark.parametrize(
    ("arguments", "status", "text"),
    [
        (["cloudrun-jobs", "token", "ci"], 0, "'name': 'ci'"),
        (["no-such-command"], 1, "Unknown command: 'no_such_command'"),
        ([], 2, "expected the name of a command"),
    ],
    ids=["known", "unknown", "none"],
)
def test_process_ends_as_the_command_does(arguments: list[str], status: int, text: str) -> None:
    """The exit status is the command's."""
    done: Any = manage("cloudrun_exec", *arguments)

    assert done.returncode == status, done.stderr
    assert text in done.stderr
