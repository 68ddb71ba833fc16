"""Store secrets in Google's Secret Manager, or in the emulator's."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, TypeAlias, TypeVar, overload

from cloudrun_jobs import backoff
from cloudrun_jobs.exceptions import (
    InvalidSettings,
    SecretAccessDenied,
    SecretCorrupted,
    SecretDisabled,
    SecretError,
    SecretUnavailable,
)
from cloudrun_jobs.secrets.payload import Payload, Version
from cloudrun_jobs.secrets.stores import Latest, Store

try:
    import google_crc32c
    from google.api_core.exceptions import AlreadyExists, FailedPrecondition, GoogleAPICallError, NotFound
    from google.cloud import secretmanager_v1 as api

    from cloudrun_jobs.secrets import clients, errors
    from cloudrun_jobs.secrets.errors import Purpose
except ImportError as error:
    if error.name is None or not error.name.startswith(("google", "grpc")):
        raise
    hint = 'pip install "django-cloudrun-jobs[secrets]"'
    raise InvalidSettings("Secret Manager requires Google's client, which is not installed.", hint=hint) from None

if TYPE_CHECKING:
    from google.cloud.secretmanager_v1.services.secret_manager_service import SecretManagerServiceClient

T = TypeVar("T")
Work: TypeAlias = "Callable[[SecretManagerServiceClient, float], T]"

CALL_TIMEOUT_SECONDS = 10.0
WAIT_SECONDS = 30.0  # For an unavailable service, in one read or update.
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.25, 4.0
MAX_VERSION_PROBES = 20  # Versions to read one by one before the enabled ones are listed.
MAX_READ_ATTEMPTS = 2  # Of a value whose checksum does not match.
MAX_SEARCHES = 3  # For an enabled version, while the newest version changes during the search.

READER = "roles/secretmanager.secretAccessor"
ADDER = "roles/secretmanager.secretVersionAdder"
MANAGER = "roles/secretmanager.secretVersionManager"
CREATOR = "roles/secretmanager.admin"
LABELS = {"managed-by": "cloudrun-jobs"}


class SecretManager(Store):
    """The secrets of a project in Secret Manager."""

    is_remote = True

    def __init__(self, project: str, endpoint: str | None) -> None:
        self._project = project
        self._endpoint = endpoint
        self.identity = ("secret-manager", project, endpoint)

    def access(self, name: str, number: int | None) -> Version:
        if number is not None:
            return self._access(name, number)
        newest = 0
        for _ in range(MAX_SEARCHES):
            latest = self._access_latest(name)
            if isinstance(latest, Version):
                return latest
            if latest == newest:
                break
            newest = latest
            if (below := self._access_below(name, newest)) is not None:
                return below
        hint = "Enable one, or add one with secrets.update()."
        message = (
            f"expected an enabled version in project {self._project}, but version {newest} and those before it"
        )
        raise SecretDisabled(f"{name}: {message} are disabled or destroyed.", hint=hint)

    def latest(self, name: str) -> Latest:
        request = api.GetSecretVersionRequest(name=self._version(name, "latest"))
        found = self._call(
            Purpose(name, self._project, "updated", MANAGER),
            lambda client, timeout: client.get_secret_version(request, retry=None, timeout=timeout),
            handled=(NotFound,),
        )
        if isinstance(found, Exception):
            return Latest(0, 0)
        number = _number(found.name)
        if found.state == api.SecretVersion.State.ENABLED:
            return Latest(number, number)
        enabled = max(self.enabled(name), default=0)
        return Latest(max(number, enabled), enabled)  # A version may have been added in the meantime.

    def add(self, name: str, payload: Payload, before: Latest | None) -> int:
        purpose = Purpose(name, self._project, "updated", ADDER)
        is_ambiguous = False
        for left in self._attempts(WAIT_SECONDS):
            if is_ambiguous and (own := self._find(name, payload, before, left)):
                return own
            added = self._add(name, payload, left)
            if isinstance(added, int):
                return self._deduplicate(name, payload, before, added, left) if is_ambiguous else added
            failure = self._translate(added, purpose)
            if not errors.is_transient(added):
                break
            is_ambiguous = is_ambiguous or not isinstance(added, errors.UNSENT_ERRORS)
        if is_ambiguous and isinstance(failure, SecretUnavailable):
            raise _may_be_written(str(failure))
        raise failure

    def create(self, name: str) -> None:
        secret = api.Secret(replication=api.Replication(automatic=api.Replication.Automatic()), labels=LABELS)
        request = api.CreateSecretRequest(parent=f"projects/{self._project}", secret_id=name, secret=secret)
        self._call(
            Purpose(name, self._project, "created", CREATOR),
            lambda client, timeout: client.create_secret(request, retry=None, timeout=timeout),
            handled=(AlreadyExists,),  # Created by another process, or by a call whose response was lost.
        )

    def disable(self, name: str, number: int) -> None:
        request = api.DisableSecretVersionRequest(name=self._version(name, number))
        self._call(
            Purpose(name, self._project, "disabled", MANAGER, number),
            lambda client, timeout: client.disable_secret_version(request, retry=None, timeout=timeout),
        )

    def enabled(self, name: str) -> list[int]:
        return self._listed(name, "state:ENABLED", WAIT_SECONDS)

    def _access(self, name: str, number: int) -> Version:
        found = self._fetch(name, number)
        if isinstance(found, Exception):
            raise self._translate(found, Purpose(name, self._project, "read", READER, number))
        return found

    def _access_latest(self, name: str) -> Version | int:
        """Return the newest version, or its number if it is not enabled."""
        found = self._fetch(name, None)
        if isinstance(found, Version):
            return found
        if number := errors.disabled_number(found):
            return number
        if isinstance(found, FailedPrecondition) and (enabled := self.enabled(name)):
            return self._access(name, enabled[0])
        raise self._translate(found, Purpose(name, self._project, "read", READER))

    def _access_below(self, name: str, number: int) -> Version | None:
        """Return the newest enabled version before this one; None if there is none.

        It reads versions before it lists any: a reader's role may not permit listing.
        """
        lowest = max(1, number - MAX_VERSION_PROBES)
        for candidate in range(number - 1, lowest - 1, -1):
            found = self._fetch(name, candidate)
            if isinstance(found, Version):
                return found
            if not isinstance(found, (FailedPrecondition, NotFound)):
                raise self._translate(found, Purpose(name, self._project, "read", READER, candidate))
        listed = [each for each in self.enabled(name) if each < lowest] if lowest > 1 else []
        return self._access(name, listed[0]) if listed else None

    def _fetch(self, name: str, number: int | None, seconds: float | None = None) -> Version | Exception:
        """Return a version, or the error of the call. Raises `SecretCorrupted`."""
        purpose = Purpose(name, self._project, "read", READER, number)
        request = api.AccessSecretVersionRequest(name=self._version(name, number or "latest"))
        for _ in range(MAX_READ_ATTEMPTS):
            found = self._call(
                purpose,
                lambda client, timeout: client.access_secret_version(request, retry=None, timeout=timeout),
                handled=(GoogleAPICallError,),
                seconds=seconds,
            )
            if isinstance(found, Exception):
                return found
            checksum = found.payload.data_crc32c if "data_crc32c" in found.payload else None
            version = Version(_number(found.name), Payload(found.payload.data))
            del found  # A traceback with local variables must not show it.
            if checksum in (None, crc32c(version.payload)):
                return version
        hint = "Read it again; if the error stays, add a new version."
        raise SecretCorrupted(f"{purpose.subject}: the checksum of the value does not match.", hint=hint)

    def _add(self, name: str, payload: Payload, left: float) -> int | Exception:
        """Send the version once; return its number, or the error of the call. Raises `SecretCorrupted`."""
        sent = api.SecretPayload(data=payload.data, data_crc32c=crc32c(payload))
        request = api.AddSecretVersionRequest(parent=f"projects/{self._project}/secrets/{name}", payload=sent)
        try:
            client = clients.client(self._endpoint)
            added = client.add_secret_version(request, retry=None, timeout=_timeout(left))
        except errors.GOOGLE_ERRORS as error:
            return error
        del sent, request
        number = _number(added.name)
        if not added.client_specified_payload_checksum:
            self._withdraw(name, number)
            message = f"{name}: Secret Manager did not verify the checksum of version {number}, which is withdrawn"
            raise SecretCorrupted(f"{message}.", hint="Repeat the update.")
        return number

    def _find(self, name: str, payload: Payload, before: Latest | None, left: float) -> int | None:
        """Return the number of the version that was added by a call without a response, if any.

        Versions are compared by value, because calls have no id. If the account may only add versions, `before`
        is None and the call is repeated: a second version with the same value is harmless.
        """
        if before is None:
            return None
        problem = ""
        try:
            for number in sorted(each for each in self._listed(name, "", left) if each > before.highest):
                found = self._fetch(name, number, left)
                if isinstance(found, Version) and found.payload == payload:
                    return number
                if isinstance(found, Exception) and not isinstance(found, FailedPrecondition):
                    problem = str(self._translate(found, Purpose(name, self._project, "read", READER, number)))
                    break
        except (SecretUnavailable, SecretAccessDenied) as error:
            problem = str(error)
        if problem:
            raise _may_be_written(problem)
        return None

    def _deduplicate(self, name: str, payload: Payload, before: Latest | None, number: int, left: float) -> int:
        """If an earlier call took effect after all, return its version and disable the second one."""
        if before is None or number == before.highest + 1:
            return number
        own = self._find(name, payload, before, left) or number
        if own != number:
            self._withdraw(name, number)
        return own

    def _withdraw(self, name: str, number: int) -> None:
        """Disable a version, ignoring errors."""
        with suppress(SecretError):
            self.disable(name, number)

    def _listed(self, name: str, state: str, seconds: float) -> list[int]:
        request = api.ListSecretVersionsRequest(parent=f"projects/{self._project}/secrets/{name}", filter=state)
        found = self._call(
            Purpose(name, self._project, "listed", MANAGER),
            lambda client, timeout: [
                _number(version.name)
                for version in client.list_secret_versions(request, retry=None, timeout=timeout)
            ],
            seconds=seconds,
        )
        return sorted(found, reverse=True)

    @overload
    def _call(self, purpose: Purpose, work: Work[T], *, seconds: float | None = ...) -> T: ...

    @overload
    def _call(
        self, purpose: Purpose, work: Work[T], *, handled: tuple[type[Exception], ...], seconds: float | None = ...
    ) -> T | Exception: ...

    def _call(
        self,
        purpose: Purpose,
        work: Work[T],
        *,
        handled: tuple[type[Exception], ...] = (),
        seconds: float | None = None,
    ) -> T | Exception:
        """Make a call, and retry it while the service is unavailable. Return errors in `handled`, raise others."""
        for left in self._attempts(WAIT_SECONDS if seconds is None else seconds):
            try:
                return work(clients.client(self._endpoint), _timeout(left))
            except errors.GOOGLE_ERRORS as error:
                failure = error
            if not errors.is_transient(failure):
                break
        if isinstance(failure, handled) and not errors.is_transient(failure):
            return failure
        raise self._translate(failure, purpose)

    def _attempts(self, seconds: float) -> Iterator[float]:
        return backoff.attempts(seconds, initial=FIRST_PAUSE_SECONDS, maximum=LONGEST_PAUSE_SECONDS)

    def _translate(self, error: Exception, purpose: Purpose) -> SecretError:
        return errors.translate(error, purpose, self._endpoint)

    def _version(self, name: str, version: int | str) -> str:
        return f"projects/{self._project}/secrets/{name}/versions/{version}"


def crc32c(payload: Payload) -> int:
    return int(google_crc32c.value(payload.data))


def _number(name: str) -> int:
    return int(name.rpartition("/")[2])


def _timeout(left: float) -> float:
    return min(CALL_TIMEOUT_SECONDS, max(left, 1.0))


def _may_be_written(message: str) -> SecretUnavailable:
    hint = "Read the secret before you repeat the update."
    return SecretUnavailable(f"{message} A version with the new value may have been added.", hint=hint)
