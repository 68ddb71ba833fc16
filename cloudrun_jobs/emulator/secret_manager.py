"""Secret Manager: secrets and their versions, as google.cloud.secretmanager.v1 serves them."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import google_crc32c
from google.cloud import secretmanager_v1 as api
from google.protobuf import empty_pb2

from cloudrun_jobs.emulator import field_masks, names
from cloudrun_jobs.emulator.engine.secrets import (
    DESTROYED,
    DISABLED,
    ENABLED,
    MAX_BYTES,
    Secret,
    Secrets,
    Version,
    new_etag,
)
from cloudrun_jobs.emulator.engine.store import paginate
from cloudrun_jobs.emulator.errors import ServiceError, failed_precondition, invalid

if TYPE_CHECKING:
    from collections.abc import Callable

    from cloudrun_jobs.emulator.clock import Clock

MAX_PAGE_SIZE = 25000
ID = re.compile(r"[A-Za-z0-9_-]{1,255}")
SECRET_NAME = re.compile(r"projects/([^/]+)/secrets/([A-Za-z0-9_-]{1,255})")
VERSION_NAME = re.compile(rf"({SECRET_NAME.pattern})/versions/([A-Za-z0-9_-]{{1,63}})")
STATE_FILTER = re.compile(r"state\s*[:=]\s*\"?(\w+)\"?", re.IGNORECASE)
SECRET_FILTER = re.compile(r"(?:(name)|labels\.([\w-]+))\s*([:=])\s*\"?([\w-]+|\*)\"?")
# An update keeps these fields, which callers cannot set.
SERVICE_SET_FIELDS = ("name", "create_time", "etag", "replication")


class SecretManager:
    """The methods of Secret Manager, with the messages of its protocol."""

    def __init__(self, secrets: Secrets, clock: Clock, drop_policy: Callable[[str], None]) -> None:
        self._secrets = secrets
        self._clock = clock
        self._drop_policy = drop_policy

    def create(self, request: api.CreateSecretRequest) -> api.Secret:
        project = re.fullmatch(r"projects/([^/]+)", request.parent)
        if project is None or not ID.fullmatch(request.secret_id):
            raise invalid(f"Invalid parent [{request.parent}] or secret_id [{request.secret_id}].")
        if "replication" not in request.secret:
            raise invalid("Secret.replication must be provided.")
        name = f"{request.parent}/secrets/{request.secret_id}"
        with self._secrets.lock:
            if self._secrets.find(name) is not None:
                raise ServiceError("ALREADY_EXISTS", f"Secret [{name}] already exists.")
            secret = Secret(name, api.Secret.serialize(request.secret), self._now())
            return self._put(secret)

    def get(self, request: api.GetSecretRequest) -> api.Secret:
        with self._secrets.lock:
            return self._message(self._existing(request.name))

    def listed(self, request: api.ListSecretsRequest) -> api.ListSecretsResponse:
        with self._secrets.lock:
            found = [self._message(each) for each in self._secrets.of_project(_project(request.parent))]
        found = [each for each in found if all(test(each) for test in _tests(request.filter))]
        page, token = paginate(found, request.page_size, request.page_token, MAX_PAGE_SIZE)
        return api.ListSecretsResponse(secrets=page, next_page_token=token, total_size=len(found))

    def update(self, request: api.UpdateSecretRequest) -> api.Secret:
        paths = list(request.update_mask.paths)
        if not paths:
            raise invalid("Field [update_mask] is required.")
        with self._secrets.lock:
            secret = self._existing(request.secret.name)
            _check_etag(secret, request.secret.etag)
            message = self._message(secret)
            updated = field_masks.updated(message, request.secret, paths)
            for path in paths:
                if path.partition(".")[0] in SERVICE_SET_FIELDS:
                    raise invalid(f"Field [{path}] cannot be updated.")
            for name in SERVICE_SET_FIELDS:  # A mask of "*" names them too.
                setattr(updated, name, getattr(message, name))
            secret.message, secret.etag = api.Secret.serialize(updated), new_etag()
            return self._put(secret)

    def delete(self, request: api.DeleteSecretRequest) -> Any:
        with self._secrets.lock:
            secret = self._existing(request.name)
            _check_etag(secret, request.etag)
            secret.deleted, secret.versions, secret.message = True, [], b""
            self._drop_policy(request.name)
            self._secrets.save(secret)
        return empty_pb2.Empty()

    def add(self, request: api.AddSecretVersionRequest) -> api.SecretVersion:
        payload = request.payload
        if not payload.data:
            raise invalid("Secret Payload cannot be empty.")
        if len(payload.data) > MAX_BYTES:
            raise invalid(f"Secret Payload cannot be larger than {MAX_BYTES} bytes.")
        was_sent = "data_crc32c" in payload
        if was_sent and payload.data_crc32c != _crc32c(payload.data):
            raise invalid("The payload's data_crc32c checksum does not match its data.")
        with self._secrets.lock:
            secret = self._existing(request.parent)
            secret.versions.append(Version(payload.data, created=self._now(), checksum_was_sent=was_sent))
            self._secrets.save(secret)
            return _version_message(secret, len(secret.versions))

    def get_version(self, request: api.GetSecretVersionRequest) -> api.SecretVersion:
        with self._secrets.lock:
            return _version_message(*self._existing_version(request.name))

    def access(self, request: api.AccessSecretVersionRequest) -> api.AccessSecretVersionResponse:
        with self._secrets.lock:
            secret, number = self._existing_version(request.name)
            version, name = secret.versions[number - 1], f"{secret.name}/versions/{number}"
            if version.state != ENABLED:
                raise failed_precondition(f"Secret Version [{name}] is in {version.state} state.")
            payload = api.SecretPayload(data=version.data, data_crc32c=_crc32c(version.data))
            return api.AccessSecretVersionResponse(name=name, payload=payload)

    def list_versions(self, request: api.ListSecretVersionsRequest) -> api.ListSecretVersionsResponse:
        wanted = STATE_FILTER.fullmatch(request.filter.strip())
        if request.filter.strip() and wanted is None:
            raise invalid(f"Invalid filter [{request.filter}].")
        with self._secrets.lock:
            secret = self._existing(request.parent)
            numbers = range(len(secret.versions), 0, -1)  # The newest first.
            found = [_version_message(secret, number) for number in numbers]
        if wanted is not None:
            found = [each for each in found if api.SecretVersion.State(each.state).name == wanted[1].upper()]
        page, token = paginate(found, request.page_size, request.page_token, MAX_PAGE_SIZE)
        return api.ListSecretVersionsResponse(versions=page, next_page_token=token, total_size=len(found))

    def enable(self, request: api.EnableSecretVersionRequest) -> api.SecretVersion:
        return self._set_state(request, ENABLED)

    def disable(self, request: api.DisableSecretVersionRequest) -> api.SecretVersion:
        return self._set_state(request, DISABLED)

    def destroy(self, request: api.DestroySecretVersionRequest) -> api.SecretVersion:
        return self._set_state(request, DESTROYED)

    def _set_state(self, request: Any, state: str) -> api.SecretVersion:
        with self._secrets.lock:
            secret, number = self._existing_version(request.name)
            version = secret.versions[number - 1]
            _check_etag(version, request.etag)
            if version.state == DESTROYED:
                name = f"{secret.name}/versions/{number}"
                raise failed_precondition(f"Secret Version [{name}] is in DESTROYED state.")
            version.state, version.etag = state, new_etag()
            if state == DESTROYED:
                version.data, version.destroyed = b"", self._now()
            self._secrets.save(secret)
            return _version_message(secret, number)

    def check_exists(self, name: str) -> None:
        with self._secrets.lock:
            self._existing(name)

    def _existing(self, name: str) -> Secret:
        if not SECRET_NAME.fullmatch(name):
            raise invalid(f"Invalid resource name [{name}]: expected projects/PROJECT/secrets/SECRET.")
        secret = self._secrets.find(name)
        if secret is None:
            raise ServiceError("NOT_FOUND", f"Secret [{name}] not found.")
        return secret

    def _existing_version(self, name: str) -> tuple[Secret, int]:
        match = VERSION_NAME.fullmatch(name)
        if match is None:
            raise invalid(
                f"Invalid resource name [{name}]: expected projects/PROJECT/secrets/SECRET/versions/VERSION."
            )
        secret, version = self._secrets.find(match[1]), match[4]
        if secret is None or not secret.versions:
            raise ServiceError("NOT_FOUND", f"Secret [{match[1]}] not found or has no versions.")
        if version == "latest":
            return secret, len(secret.versions)
        number = int(version) if version.isdecimal() else self._message(secret).version_aliases.get(version, 0)
        if not 0 < number <= len(secret.versions):
            raise ServiceError("NOT_FOUND", f"Secret Version [{name}] not found.")
        return secret, number

    def _put(self, secret: Secret) -> api.Secret:
        self._secrets.by_name[secret.name] = secret
        self._secrets.save(secret)
        return self._message(secret)

    def _message(self, secret: Secret) -> api.Secret:
        message: api.Secret = api.Secret.deserialize(secret.message)
        if "replication" not in message:
            message.replication = api.Replication(automatic=api.Replication.Automatic())
        message.name, message.etag, message.create_time = secret.name, secret.etag, _time(secret.created)
        return message

    def _now(self) -> float:
        return self._clock.now().timestamp()


def _version_message(secret: Secret, number: int) -> api.SecretVersion:
    version = secret.versions[number - 1]
    return api.SecretVersion(
        name=f"{secret.name}/versions/{number}",
        create_time=_time(version.created),
        destroy_time=_time(version.destroyed) if version.state == DESTROYED else None,
        state=getattr(api.SecretVersion.State, version.state),
        replication_status=api.ReplicationStatus(automatic=api.ReplicationStatus.AutomaticStatus()),
        etag=version.etag,
        client_specified_payload_checksum=version.checksum_was_sent,
    )


def _time(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def _crc32c(data: bytes) -> int:
    return int(google_crc32c.value(data))


def _check_etag(resource: Secret | Version, etag: str) -> None:
    if etag and etag != resource.etag:
        raise failed_precondition(
            "The etag provided in the request does not match the current etag of the resource."
        )


def _project(parent: str) -> str:
    match = re.fullmatch(r"projects/([^/]+)", parent)
    if match is None:
        raise invalid(f"Invalid parent [{parent}]: expected projects/PROJECT.")
    return match[1]


def _tests(expression: str) -> list[Callable[[api.Secret], bool]]:
    """Return the conditions of a filter: names and labels, joined by AND."""
    return [_test(part, expression) for part in re.split(r"\s+AND\s+", expression.strip()) if part]


def _test(part: str, expression: str) -> Callable[[api.Secret], bool]:
    match = SECRET_FILTER.fullmatch(part)
    if match is None:
        raise invalid(f"Invalid filter [{expression}].")
    is_name, label, operator, value = match.groups()
    if is_name:
        return lambda secret: value in names.short(secret.name)
    if operator == ":" and value == "*":
        return lambda secret: label in secret.labels
    return lambda secret: secret.labels.get(label) == value
