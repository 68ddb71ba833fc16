"""`manage.py cloudrun_jobs token`."""

from __future__ import annotations

import ast
from hashlib import sha256

import pytest
from django.core.management import call_command

from cloudrun_jobs.http import credentials


def test_token_and_its_entry(capsys: pytest.CaptureFixture[str], settings: object) -> None:
    """stdout has the token alone; the entry in the message is valid and has its digest."""
    call_command("cloudrun_jobs", "token", "n8n")

    token, message = capsys.readouterr()
    entry = ast.literal_eval(message[message.index("{") :])
    settings.CLOUDRUN_JOBS = {"HTTP": {"TOKENS": [entry]}}  # type: ignore[attr-defined]
    (loaded,) = credentials.load().tokens
    assert (loaded.name, loaded.digest) == ("n8n", sha256(token.strip().encode()).digest())
    assert token.strip() not in message
