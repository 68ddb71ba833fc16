"""Choose the store of secrets: Secret Manager, or a mapping or a file in the settings."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import NamedTuple

from cloudrun_jobs import conf, environ
from cloudrun_jobs.conf import INLINE_ENVIRONMENTS, LocalSecrets
from cloudrun_jobs.exceptions import InvalidSettings
from cloudrun_jobs.secrets.payload import Payload, Version


class Latest(NamedTuple):
    """The numbers of a secret's newest versions; 0 if there is none."""

    highest: int  # In any state.
    enabled: int


class Store(ABC):
    """The base class of the stores. Its methods raise subclasses of `SecretError`."""

    #: True if reads call a service, so that the process caches values.
    is_remote = False
    #: Identifies the store in the cache.
    identity: Hashable = None

    def exclusive(self) -> AbstractContextManager[object]:
        """Block updates by other processes during the `with` block, if the store supports it."""
        return nullcontext()

    @abstractmethod
    def access(self, name: str, number: int | None) -> Version:
        """Return a version; without a number, the newest enabled one."""

    @abstractmethod
    def latest(self, name: str) -> Latest:
        """Return the numbers of the newest versions."""

    @abstractmethod
    def add(self, name: str, payload: Payload, before: Latest | None) -> int:
        """Add a version; return its number. `before`: the newest versions before the update, if known."""

    @abstractmethod
    def create(self, name: str) -> None:
        """Create the secret, unless it exists."""

    @abstractmethod
    def disable(self, name: str, number: int) -> None:
        """Disable a version."""

    @abstractmethod
    def enabled(self, name: str) -> list[int]:
        """Return the numbers of the enabled versions, newest first."""


def configured() -> Store:
    """Return the store that the settings select. Raises `InvalidSettings`.

    A process on the emulator uses the emulator's secrets and ignores `SECRETS`.
    """
    settings = conf.load()
    endpoint = environ.local_endpoint(settings.options)
    if endpoint is None and settings.secrets is not None:
        if settings.environment not in INLINE_ENVIRONMENTS:
            message = f"expected in local and test environments, set in {settings.environment!r}"
            hint = "Remove it: the secrets are in Secret Manager."
            raise InvalidSettings(f"{conf.setting_name('SECRETS')}: {message}.", hint=hint)
        return local(settings.secrets)
    if endpoint is None and settings.environment in INLINE_ENVIRONMENTS:
        raise InvalidSettings(
            f"{conf.setting_name('SECRETS')}: required in the environment {settings.environment!r}, not set.",
            hint="Set it to a dictionary such as {'partner-token': 'abc'} or to the path of a JSON file. Or start "
            f"`manage.py cloudrun_emulator`, and set PROJECT, and {environ.EMULATOR_VARIABLE} to its gRPC port.",
        )
    if not settings.project:
        hint = "Set it to the project that contains the secrets."
        raise InvalidSettings(f"{conf.setting_name('PROJECT')}: required for secrets, not set.", hint=hint)
    from cloudrun_jobs.secrets.manager import SecretManager  # Google's client takes half a second.

    return SecretManager(settings.project, endpoint)


def local(source: LocalSecrets | Path) -> Store:
    """Return the store of a mapping or a file. Raises `InvalidSettings` if the values of a mapping are invalid."""
    from cloudrun_jobs.secrets.local import FileStore, memory

    return FileStore(source) if isinstance(source, Path) else memory(source)


def has_client() -> bool:
    """Return True if the libraries of the extra `secrets` are installed. It imports none of them."""
    from importlib.metadata import Distribution  # Takes milliseconds, and only the system checks need it.

    names = ("google-cloud-secret-manager", "google-crc32c")
    return all(any(Distribution.discover(name=name)) for name in names)
