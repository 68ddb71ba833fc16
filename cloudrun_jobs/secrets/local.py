"""Store the secrets of local and test environments in memory, or in a JSON file that processes share.

A secret is a value, or a list of versions, numbered from 1. A version is a string; an object `{"value": TEXT}` or
`{"base64": TEXT}`, with `"disabled": true` if it is disabled; or null if it is destroyed.
"""

from __future__ import annotations

import base64
import binascii
import fcntl
import json
import os
import tempfile
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import RLock
from typing import Any

from django.core.signals import setting_changed

from cloudrun_jobs import backoff, conf
from cloudrun_jobs.conf import LocalSecrets
from cloudrun_jobs.exceptions import InvalidSettings, SecretDisabled, SecretNotFound, SecretUnavailable
from cloudrun_jobs.secrets.payload import NAME_CHARACTERS, NAME_PATTERN, Payload, Version, payload_of, problem_of
from cloudrun_jobs.secrets.stores import Latest, Store

LOCK_TIMEOUT_SECONDS = 10.0
VERSION_KEYS = frozenset({"value", "base64", "disabled"})


@dataclass(slots=True)
class Entry:
    """A version. Its number is its position in the list."""

    payload: Payload | None  # None: destroyed.
    enabled: bool = True


Document = dict[str, list[Entry]]


class Malformed(Exception):
    """A document is invalid. The message has the reason, and no value."""


class LocalStore(Store):
    """A store that reads and writes a whole document."""

    #: The name of the store in errors.
    place: str

    @abstractmethod
    def read(self) -> Document:
        """Return the document."""

    @abstractmethod
    def write(self, document: Document) -> None:
        """Replace the document."""

    def access(self, name: str, number: int | None) -> Version:
        versions = self._versions(self.read(), name)
        number = number or _newest(versions) or len(versions)
        entry = self._entry(versions, name, number)
        if entry.payload is None or not entry.enabled:
            state = "destroyed" if entry.payload is None else "disabled"
            hint = "Use another version, or add one with secrets.update()."
            raise SecretDisabled(
                f"{name}: expected an enabled version, but version {number} is {state}.", hint=hint
            )
        return Version(number, entry.payload)

    def latest(self, name: str) -> Latest:
        versions = self.read().get(name, [])
        return Latest(len(versions), _newest(versions))

    def add(self, name: str, payload: Payload, before: Latest | None) -> int:
        with self.exclusive():
            document = self.read()
            self._versions(document, name, may_be_empty=True).append(Entry(payload))
            self.write(document)
            return len(document[name])

    def create(self, name: str) -> None:
        with self.exclusive():
            document = self.read()
            if name not in document:
                self.write({**document, name: []})

    def disable(self, name: str, number: int) -> None:
        with self.exclusive():
            document = self.read()
            self._entry(self._versions(document, name), name, number).enabled = False
            self.write(document)

    def enabled(self, name: str) -> list[int]:
        return _enabled(self._versions(self.read(), name))

    def _versions(self, document: Document, name: str, *, may_be_empty: bool = False) -> list[Entry]:
        if name not in document:
            hint = f"Add it to {self.place}, or pass create=True to secrets.update()."
            raise SecretNotFound(f"{name}: {self.place} has no such secret.", hint=hint)
        if not document[name] and not may_be_empty:
            raise SecretNotFound(f"{name}: the secret has no versions.", hint="Add one with secrets.update().")
        return document[name]

    def _entry(self, versions: list[Entry], name: str, number: int) -> Entry:
        if number > len(versions):
            hint = "Use one of them, or leave the version out."
            raise SecretNotFound(f"{name}: expected a version from 1 to {len(versions)}, got {number}.", hint=hint)
        return versions[number - 1]


def _enabled(versions: list[Entry]) -> list[int]:
    live = [number for number, entry in enumerate(versions, 1) if entry.enabled and entry.payload is not None]
    return live[::-1]


def _newest(versions: list[Entry]) -> int:
    return next(iter(_enabled(versions)), 0)


_memory: MemoryStore | None = None
_memory_lock = RLock()


class MemoryStore(LocalStore):
    """The secrets of a mapping in the settings. Updates are lost when the process ends."""

    def __init__(self, source: LocalSecrets) -> None:
        self.place = conf.setting_name("SECRETS")
        self.source = source
        self._document = decode(source, self.place)

    def exclusive(self) -> AbstractContextManager[object]:
        return _memory_lock

    def read(self) -> Document:
        return self._document

    def write(self, document: Document) -> None:
        self._document = document


def memory(source: LocalSecrets) -> MemoryStore:
    """Return this process's store of the mapping."""
    global _memory
    with _memory_lock:
        if _memory is None or _memory.source != source:
            _memory = MemoryStore(source)
        return _memory


def _on_setting_changed(**kwargs: Any) -> None:
    """Discard a test's updates when its settings end."""
    global _memory
    if kwargs.get("setting") == "CLOUDRUN_JOBS":
        _memory = None


def _replace_inherited_lock() -> None:
    global _memory_lock
    _memory_lock = RLock()  # A thread of the parent may have held it.


setting_changed.connect(_on_setting_changed, dispatch_uid="cloudrun_jobs.secrets")
os.register_at_fork(after_in_child=_replace_inherited_lock)


class FileStore(LocalStore):
    """The secrets of a JSON file. Updates replace the file atomically, under a lock file beside it."""

    def __init__(self, path: Path) -> None:
        self.place = str(path)
        # Updates keep a symbolic link. `Path.resolve()` of Python 3.12 raises for a loop of links.
        self._path = Path(os.path.realpath(path))
        self._holds_lock = False

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        if self._holds_lock:
            yield
            return
        with self._locked():
            self._holds_lock = True
            try:
                yield
            finally:
                self._holds_lock = False

    def read(self) -> Document:
        failure = ""
        try:
            return decode(LocalSecrets(json.loads(self._path.read_bytes())), self.place)
        except FileNotFoundError:
            return {}
        except RecursionError:
            failure = "its values are nested too deeply"
        except ValueError as error:  # Its message has no text of the file.
            failure = type(error).__name__
            if isinstance(error, json.JSONDecodeError):
                failure = f"{error.msg} (line {error.lineno}, column {error.colno})"
        except OSError as error:
            failure = error.strerror or type(error).__name__
        raise InvalidSettings(f"{self.place}: expected a readable JSON file of secrets: {failure}.")

    def write(self, document: Document) -> None:
        text = json.dumps(encode(document), indent=2, ensure_ascii=False) + "\n"
        failure = ""
        try:
            _replace(self._path, text.encode())
        except OSError as error:
            failure = error.strerror or type(error).__name__
        del text
        if failure:
            raise SecretUnavailable(f"{self.place}: the file cannot be written: {failure}. Nothing was changed.")

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with self._lock_file() as lock:
            for _ in backoff.attempts(LOCK_TIMEOUT_SECONDS, initial=0.005, maximum=0.1):
                with suppress(BlockingIOError):
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
            else:
                message = f"{self.place}: another process held the lock for {LOCK_TIMEOUT_SECONDS:.0f} seconds"
                raise SecretUnavailable(f"{message}. Nothing was changed.", hint="Repeat the update.")
            try:
                yield
            finally:
                fcntl.flock(lock, fcntl.LOCK_UN)  # A child forked in the meantime has the descriptor too.

    @contextmanager
    def _lock_file(self) -> Iterator[int]:
        path, failure, descriptor = self._path.with_name(f"{self._path.name}.lock"), "", -1
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            failure = error.strerror or type(error).__name__
        if failure:
            hint = "Create the directory, and grant this process write access to it."
            raise SecretUnavailable(f"{path}: cannot be opened: {failure}. Nothing was changed.", hint=hint)
        try:
            yield descriptor
        finally:
            os.close(descriptor)


def _replace(path: Path, content: bytes) -> None:
    """Replace the file atomically: readers see the old or the new content."""
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # Mode 0600.
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def decode(source: LocalSecrets, place: str) -> Document:
    """Parse a mapping as a document. Raises `InvalidSettings`."""
    problem = ""
    try:
        return _decode(source.values)
    except Malformed as error:
        problem = str(error)
    raise InvalidSettings(f"{place}: {problem}.")  # Outside the block: its frames hold values.


def _decode(secrets: object) -> Document:
    if not isinstance(secrets, Mapping):
        raise Malformed(f"expected an object of secrets by name, got {type(secrets).__name__}")
    for number, name in enumerate(secrets, 1):
        if not isinstance(name, str) or not NAME_PATTERN.fullmatch(name):
            raise Malformed(f"expected {NAME_CHARACTERS} in the name of secret {number}")
    return {name: _decode_versions(name, value) for name, value in secrets.items()}


def _decode_versions(name: str, value: object) -> list[Entry]:
    versions = value if isinstance(value, list | tuple) else [value]
    return [_decode_version(f"{name}: version {number}", each) for number, each in enumerate(versions, 1)]


def _decode_version(where: str, version: Any) -> Entry:
    if version is None:
        return Entry(None, enabled=False)
    fields = version if isinstance(version, Mapping) else {"value": version}
    disabled, has_one_value = fields.get("disabled", False), len(fields.keys() & {"value", "base64"}) == 1
    if not fields.keys() <= VERSION_KEYS or not isinstance(disabled, bool) or not has_one_value:
        raise Malformed(f"{where}: expected 'value' or 'base64', and optionally 'disabled'")
    value = fields["value"] if "value" in fields else _from_base64(where, fields["base64"])
    if problem := problem_of(value):
        raise Malformed(f"{where}: {problem}")
    return Entry(payload_of(value), enabled=not disabled)


def _from_base64(where: str, text: object) -> bytes:
    try:
        return base64.b64decode(text, validate=True) if isinstance(text, str) else b""
    except (binascii.Error, ValueError):
        raise Malformed(f"{where}: expected base64") from None


def encode(document: Document) -> dict[str, list[Any]]:
    """Return the document in its JSON form."""
    return {name: [_encode(entry) for entry in versions] for name, versions in document.items()}


def _encode(entry: Entry) -> dict[str, Any] | None:
    if entry.payload is None:
        return None
    try:
        value: dict[str, Any] = {"value": entry.payload.data.decode()}
    except UnicodeDecodeError:
        value = {"base64": base64.b64encode(entry.payload.data).decode()}
    return value if entry.enabled else {**value, "disabled": True}
