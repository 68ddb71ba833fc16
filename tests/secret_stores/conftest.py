"""The stores of secrets, each with the settings that select it."""

from __future__ import annotations

import json
from base64 import b64decode
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest
from google.cloud import secretmanager_v1 as api

from cloudrun_jobs.emulator import Emulator


def in_memory(_: Any, secrets: dict[str, Any]) -> dict[str, Any]:
    return {"ENVIRONMENT": "local", "SECRETS": secrets}


def in_file(request: Any, secrets: dict[str, Any]) -> dict[str, Any]:
    path = request.getfixturevalue("tmp_path") / "secrets.json"
    path.write_text(json.dumps(secrets))
    return {"ENVIRONMENT": "local", "SECRETS": path}


@pytest.fixture(scope="session")
def emulator() -> Iterator[Emulator]:
    """An emulator that the tests share. Each test has its own project."""
    with Emulator() as emulator:
        yield emulator


class SecretManager:
    """The emulator's Secret Manager, with the secrets of one project."""

    def __init__(self, emulator: Emulator, secrets: dict[str, Any]) -> None:
        self.emulator = emulator
        self.project = f"acme-{uuid4().hex[:8]}x"
        self.settings = {"ENVIRONMENT": "local", "PROJECT": self.project, "OPTIONS": {"endpoint": emulator.grpc}}
        for secret_id, value in secrets.items():
            self._create(secret_id, value if isinstance(value, list) else [value])

    def states(self, secret_id: str = "token") -> dict[int, str]:
        """Return the states of the versions by their numbers."""
        parent = f"projects/{self.project}/secrets/{secret_id}"
        versions = self.emulator.clients.secrets.list_secret_versions(parent=parent)
        return {int(each.name.rpartition("/")[2]): api.SecretVersion.State(each.state).name for each in versions}

    def disable(self, number: int) -> None:
        name = f"projects/{self.project}/secrets/token/versions/{number}"
        self.emulator.clients.secrets.disable_secret_version(name=name)

    def add(self, value: bytes, secret_id: str = "token") -> None:
        parent = f"projects/{self.project}/secrets/{secret_id}"
        self.emulator.clients.secrets.add_secret_version(parent=parent, payload=api.SecretPayload(data=value))

    def _create(self, secret_id: str, versions: list[Any]) -> None:
        client, parent = self.emulator.clients.secrets, f"projects/{self.project}"
        secret = api.Secret(replication=api.Replication(automatic=api.Replication.Automatic()))
        client.create_secret(parent=parent, secret_id=secret_id, secret=secret)
        for number, version in enumerate(versions, 1):
            fields = version if isinstance(version, dict) else {"value": version}
            data = fields["value"].encode() if "value" in fields else b64decode(fields["base64"])
            client.add_secret_version(parent=f"{parent}/secrets/{secret_id}", payload=api.SecretPayload(data=data))
            if fields.get("disabled"):
                client.disable_secret_version(name=f"{parent}/secrets/{secret_id}/versions/{number}")


def in_emulator(request: Any, secrets: dict[str, Any]) -> dict[str, Any]:
    return SecretManager(request.getfixturevalue("emulator"), secrets).settings


@pytest.fixture
def manager(emulator: Emulator, settings: Any) -> Iterator[SecretManager]:
    """Secret Manager with the secret `token`, whose versions are "one" and "two"."""
    manager = SecretManager(emulator, {"token": ["one", "two"]})
    settings.CLOUDRUN_JOBS = manager.settings
    emulator.calls.clear()
    yield manager
    emulator.faults.clear()


@pytest.fixture(params=[in_memory, in_file, in_emulator])
def store(request: Any, settings: Any) -> None:
    """A store with two secrets: `token`, whose version 2 is disabled and 3 is "three", and `binary`."""
    versions = ["one", {"value": "two", "disabled": True}, "three"]
    settings.CLOUDRUN_JOBS = request.param(request, {"token": versions, "binary": {"base64": "/w=="}})
