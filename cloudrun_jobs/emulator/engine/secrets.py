"""Keep secrets and their versions, and look up the secrets of a job's environment variables."""

from __future__ import annotations

import base64
import binascii
import json
import os
import re
import secrets as random
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cloudrun_jobs.emulator import names
from cloudrun_jobs.emulator.config import InvalidConfiguration

if TYPE_CHECKING:
    from collections.abc import Callable

    from google.cloud import run_v2

ENV_PREFIX = "CLOUDRUN_EMULATOR_SECRET_"
ENABLED, DISABLED, DESTROYED = "ENABLED", "DISABLED", "DESTROYED"
KEY = re.compile(r"[A-Za-z0-9_-]{1,255}(:(latest|[1-9][0-9]{0,3}))?", re.ASCII)
MAX_BYTES = 65536  # Secret Manager's limit for a version.
VERSION_KEYS = frozenset({"value", "base64", "disabled"})


class MissingSecret(LookupError):
    """The environment of a job refers to a secret that does not exist. The text is Google's."""

    def __init__(self, message: str, *, hint: str) -> None:
        super().__init__(message)
        self.hint = hint


def new_etag() -> str:
    return f'"{random.token_hex(7)}"'


@dataclass(slots=True)
class Version:
    """A version. Its number is its position in the list."""

    data: bytes = field(repr=False)
    state: str = ENABLED
    created: float = 0.0
    destroyed: float = 0.0
    etag: str = field(default_factory=new_etag)
    checksum_was_sent: bool = False


@dataclass(slots=True)
class Secret:
    """A secret with its versions. A deleted secret is kept, so that it is not seeded again."""

    name: str
    message: bytes = b""  # The serialised `Secret` of the wire protocol.
    created: float = 0.0
    etag: str = field(default_factory=new_etag)
    versions: list[Version] = field(default_factory=list)
    deleted: bool = False

    def encode(self) -> bytes:
        fields = {name: getattr(self, name) for name in ("name", "created", "etag", "deleted")}
        versions = [
            {name: getattr(version, name) for name in Version.__slots__} | {"data": _text(version.data)}
            for version in self.versions
        ]
        return json.dumps({**fields, "message": _text(self.message), "versions": versions}).encode()

    @classmethod
    def decode(cls, body: bytes) -> Secret:
        fields = json.loads(body)
        versions = [Version(**{**each, "data": base64.b64decode(each["data"])}) for each in fields["versions"]]
        return cls(**{**fields, "message": base64.b64decode(fields["message"]), "versions": versions})


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


@dataclass(slots=True)
class Secrets:
    """The secrets by name. The seeds, with which the emulator was started, are in every project."""

    seeds: Mapping[str, Any]  # Values by id or ``id:version``, or lists of versions by id.
    save: Callable[[Secret], None] = lambda _: None
    by_name: dict[str, Secret] = field(default_factory=dict)
    lock: threading.RLock = field(default_factory=threading.RLock)

    def __post_init__(self) -> None:
        if not isinstance(self.seeds, Mapping):
            raise InvalidConfiguration("expected a JSON object of secrets by id, got another value")
        for key in self.seeds:
            if not KEY.fullmatch(key):
                raise InvalidConfiguration(
                    f"expected the id of a secret, such as 'token' or 'token:3', got {key!r}"
                )
            self._seed(key.partition(":")[0])

    def find(self, name: str) -> Secret | None:
        """Return the secret with this name; None if there is none."""
        with self.lock:
            if name not in self.by_name and (versions := self._seed(names.short(name))) is not None:
                self.by_name[name] = Secret(name, versions=versions)
            found = self.by_name.get(name)
            return found if found is not None and not found.deleted else None

    def of_project(self, project: str) -> list[Secret]:
        """Return the secrets of a project, sorted by name."""
        prefix = f"projects/{project}/secrets/"
        with self.lock:
            ids = {key.partition(":")[0] for key in self.seeds}
            found = {prefix + each for each in ids} | {name for name in self.by_name if name.startswith(prefix)}
            return [secret for name in sorted(found) if (secret := self.find(name)) is not None]

    def value(self, variable: run_v2.EnvVar, resource: str) -> str:
        """Return the value of a variable, looked up if it refers to a secret."""
        name = secret_name(variable, resource)
        if name is None:
            return variable.value
        version = variable.value_source.secret_key_ref.version or "latest"
        with self.lock:
            data = self._data(name, version)
        message = f"Secret {name}/versions/{version}"
        try:
            text = data.decode()
        except UnicodeDecodeError:
            text = "\0"
        if "\0" in text:  # Environment variables cannot contain NUL.
            raise MissingSecret(f"{message} is not text", hint="A variable holds UTF-8 without NUL.")
        return text

    def _data(self, name: str, version: str) -> bytes:
        secret = self.find(name)
        versions = secret.versions if secret is not None else []
        number = int(version) if re.fullmatch("[0-9]{1,9}", version) else 0
        number = len(versions) if version == "latest" else number
        message = f"Secret {name}/versions/{version}"
        if 0 < number <= len(versions):
            found = versions[number - 1]
            if found.state == ENABLED:
                return found.data
            hint = f"Version {number} of the secret is {found.state.lower()}. Cloud Run does not use an older one."
            raise MissingSecret(f"{message} is in {found.state} state", hint=hint)
        secret_id = names.short(name)
        seed = self.seeds.get(secret_id, os.environ.get(_variable(secret_id)))
        if isinstance(seed, str) and versions and versions[-1].state == ENABLED:
            return versions[-1].data  # A seed without a version stands for any.
        hint = (
            f"The emulator has no value for version {version!r} of the secret {secret_id!r}. Start it with "
            f"--secrets FILE, a JSON object such as {json.dumps({secret_id: 'VALUE'})}, or with the variable "
            f"{_variable(secret_id)}."
        )
        raise MissingSecret(f"{message} was not found", hint=hint)

    def _seed(self, secret_id: str) -> list[Version] | None:
        """Return the versions of the seeds. A value without a version is the newest."""
        numbered = {
            int(version): _version(key, value)
            for key, value in self.seeds.items()
            if (version := key.partition(":")[2]).isdecimal() and key.partition(":")[0] == secret_id
        }
        sources = (
            (secret_id, self.seeds),
            (f"{secret_id}:latest", self.seeds),
            (_variable(secret_id), os.environ),
        )
        newest = [values[key] for key, values in sources if key in values][:1]
        if newest and isinstance(newest[0], list):
            return [_version(secret_id, each) for each in newest[0]]
        numbers = range(1, max(numbered, default=0) + 1)
        versions = [numbered.get(number) or Version(b"", DESTROYED) for number in numbers]
        versions += [_version(secret_id, each) for each in newest]
        return versions or None


def secret_name(variable: run_v2.EnvVar, resource: str) -> str | None:
    """Return the name of the secret that a variable of this resource refers to; None if it refers to none."""
    secret = variable.value_source.secret_key_ref.secret
    if not secret or "/" in secret:
        return secret or None
    return f"projects/{names.location_of(resource).project}/secrets/{secret}"


def _variable(secret_id: str) -> str:
    return ENV_PREFIX + secret_id.upper().replace("-", "_")


def _version(key: str, value: Any) -> Version:
    """Parse a seed's value as a version. Raises `InvalidConfiguration`."""
    if value is None:
        return Version(b"", DESTROYED)
    fields = value if isinstance(value, Mapping) else {"value": value}
    data, disabled = _bytes(fields), fields.get("disabled", False)
    has_one_value = len(fields.keys() & {"value", "base64"}) == 1 and 0 < len(data) <= MAX_BYTES
    if not fields.keys() <= VERSION_KEYS or not has_one_value or not isinstance(disabled, bool):
        raise InvalidConfiguration(
            f"expected a text, or a list of versions, as the value of the secret {key!r}, got another value"
        )
    return Version(data, DISABLED if disabled else ENABLED)


def _bytes(fields: Mapping[str, Any]) -> bytes:
    value = fields.get("value", fields.get("base64"))
    if not isinstance(value, str):
        return b""
    try:
        return value.encode() if "value" in fields else base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        return b""
