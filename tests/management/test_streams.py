"""Output that cannot take every text, or cannot be written."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
from django.core.management import call_command

from cloudrun_jobs.models import JobRun

MANAGE = Path(__file__).parents[1] / "manage.py"
TEXT = "é 東京 😀"


def written(encoding: str, *argv: str) -> str:
    """Return what the command writes to a stream of that encoding."""
    raw = io.BytesIO()
    with io.TextIOWrapper(raw, encoding) as stream:
        call_command("cloudrun_jobs", *argv, stdout=stream)
        stream.flush()
        return raw.getvalue().decode(encoding)


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp932", "utf-8", "utf-16"])
@pytest.mark.django_db
def test_json_is_valid_in_every_encoding(encoding: str) -> None:
    """A character that the encoding does not have is an escape of JSON."""
    run = JobRun.objects.create(command="echo", environment="test", trigger="delay", result=TEXT)
    data = json.loads(written(encoding, "show", str(run.pk), "--json"))

    assert data["result"] == TEXT


@pytest.mark.parametrize(("encoding", "shown"), [("ascii", r"\xe9 \u6771\u4eac \U0001f600"), ("utf-8", TEXT)])
@pytest.mark.django_db
def test_characters_outside_the_encoding_are_escaped(encoding: str, shown: str) -> None:
    """Characters that the encoding cannot represent are escaped, as with `LC_ALL=C`."""
    run = JobRun.objects.create(command="echo", environment="test", trigger="delay", error_message=TEXT)

    assert shown in written(encoding, "show", str(run.pk))


@pytest.mark.parametrize(
    ("redirection", "status", "error"),
    [
        (">&-", 0, ""),
        (">&- 2>&-", 0, ""),
        ("> /dev/full", 2, "CommandError: The output cannot be written: No space left on device.\n"),
    ],
)
@pytest.mark.usefixtures("process_database")
def test_closed_stdout_and_full_disk(redirection: str, status: int, error: str) -> None:
    """Closed streams discard the output; a full disk is one line on stderr."""
    command = [sys.executable, str(MANAGE), "cloudrun_jobs", "stats", "--json"]
    shell = ["sh", "-c", f'exec "$0" "$@" {redirection}', *command]
    done = subprocess.run(shell, stderr=subprocess.PIPE, text=True, check=False)

    assert (done.returncode, done.stderr) == (status, error)
