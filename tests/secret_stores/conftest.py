"""The stores of secrets, each with the settings that select it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

PROJECT = "acme"


def in_memory(tmp_path: Path, secrets: dict[str, Any]) -> dict[str, Any]:
    return {"ENVIRONMENT": "local", "SECRETS": secrets}


def in_file(tmp_path: Path, secrets: dict[str, Any]) -> dict[str, Any]:
    path = tmp_path / "secrets.json"
    path.write_text(json.dumps(secrets))
    return {"ENVIRONMENT": "local", "SECRETS": path}


@pytest.fixture(params=[in_memory, in_file])
def store(request: Any, settings: Any, tmp_path: Path) -> None:
    """A store with two secrets: `token`, whose version 2 is disabled and 3 is "three", and `binary`."""
    versions = ["one", {"value": "two", "disabled": True}, "three"]
    settings.CLOUDRUN_JOBS = request.param(tmp_path, {"token": versions, "binary": {"base64": "/w=="}})
