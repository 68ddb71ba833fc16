"""The one reader of `settings.CLOUDRUN_JOBS`.

The settings are read on every call, so `override_settings` just works; `delay()` and requests of the HTTP API read
them once. An environment variable `CLOUDRUN_JOBS_<KEY>` overrides the dictionary, because that is how a container
is configured.
"""

from __future__ import annotations

import copy
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, TypeVar, cast

from django.conf import settings

from cloudrun_jobs.exceptions import InvalidSettings
from cloudrun_jobs.suggestions import did_you_mean

Value = TypeVar("Value")

PREFIX = "CLOUDRUN_JOBS_"

# Variables with the same prefix that describe the run of a container; see `environ`.
EXECUTION_KEYS = ("RUN_ID", "SCHEDULE", "RESERVED_FOR", "ELEMENTS", "REDUCE", "LOCAL")
ELEMENTS_VARIABLE = f"{PREFIX}ELEMENTS"  # The number of elements of `delay_many()`.

TEST_MODE_VARIABLE = f"{PREFIX}TEST_MODE"  # Sets `test_mode` of the jobs that declare it.
TEST_MODES = {"": False, "0": False, "1": True}

INLINE_ENVIRONMENTS = frozenset({"local", "test"})
INLINE_BACKEND = "cloudrun_jobs.backends.inline.InlineBackend"
CLOUDRUN_BACKEND = "cloudrun_jobs.backends.cloudrun.CloudRunBackend"
OWN_BACKENDS = frozenset({INLINE_BACKEND, CLOUDRUN_BACKEND})  # They run a triggered job during the request.
DEFAULT_ALIAS = "default"  # Of the backend that BACKEND names; the records have "".
RECONCILE_COMMAND = "reconcile_cloudrun_runs"  # Declared by the settings, and enabled if they do.

# Region and project become part of URLs that are called with credentials, so they must not contain anything else.
PATTERNS = {
    "ENVIRONMENT": (r"[a-z]([a-z0-9-]*[a-z0-9])?", "lower-case letters, digits and hyphens"),
    "PROJECT": (r"([a-z0-9.-]+:)?[a-z][a-z0-9-]*[a-z0-9]", "a project id such as 'acme-prod'"),
    "REGION": (r"[a-z]+-[a-z]+[0-9]+", "a region such as 'asia-northeast1'"),
    "BACKEND": (r"\w+(\.\w+)+", "the dotted path of a backend class"),
}


class LocalSecrets:
    """The values of secrets. `repr()` hides them, so that no debug page or traceback shows them."""

    __slots__ = ("values",)

    def __init__(self, values: Any) -> None:
        self.values = copy.deepcopy(values)

    def __repr__(self) -> str:
        return "[secrets]"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, LocalSecrets) and self.values == other.values

    __hash__ = None  # type: ignore[assignment]


class Settings(NamedTuple):
    """The values in force."""

    environment: str = "local"  # "local" and "test" run inline; also the suffix of job names.
    project: str = ""
    region: str = ""
    backend: str = INLINE_BACKEND
    options: Mapping[str, Any] = MappingProxyType({})  # Keyword arguments of the backend.
    backends: Mapping[str, Any] = MappingProxyType({})  # BACKEND and OPTIONS of further backends, by alias.
    routes: Mapping[str, Any] = MappingProxyType({})  # The aliases of backends, by patterns of command names.
    locks: Mapping[str, Any] = MappingProxyType({})  # BACKEND and OPTIONS of the locks.
    defaults: Mapping[str, Any] = MappingProxyType({})  # Declarations for jobs that make none.
    reconcile: Mapping[str, Any] = MappingProxyType({})  # Declarations of RECONCILE_COMMAND.
    http: Mapping[str, Any] = MappingProxyType({})  # The credentials of the HTTP API, which is closed without any.
    secrets: LocalSecrets | Path | None = None  # Values, or the path of a JSON file; None: Secret Manager.


KEYS = frozenset(name.upper() for name in Settings._fields)
MAPPINGS = frozenset({"OPTIONS", "BACKENDS", "ROUTES", "LOCKS", "DEFAULTS", "RECONCILE", "HTTP"})


# What `once()` keeps in a block of `reading_once()`.
_memo: ContextVar[dict[object, Any] | None] = ContextVar("cloudrun_jobs_memo", default=None)


@contextmanager
def reading_once() -> Iterator[None]:
    """Read the settings, and the declarations of jobs, once while the block runs, as for one request.

    A block within another one changes nothing.
    """
    if _memo.get() is not None:
        yield
        return
    token = _memo.set({})
    try:
        yield
    finally:
        _memo.reset(token)


@contextmanager
def reading_anew() -> Iterator[None]:
    """Read them on every call again while the block runs, inside a block of `reading_once()`."""
    token = _memo.set(None)
    try:
        yield
    finally:
        _memo.reset(token)


def once(key: object, read: Callable[[], Value]) -> Value:
    """Return what `read()` returns; in a block of `reading_once()`, what it returned first."""
    memo = _memo.get()
    if memo is None:
        return read()
    if key not in memo:
        memo[key] = read()
    return cast(Value, memo[key])


def load() -> Settings:
    """Return the settings in force. Raises `InvalidSettings`, naming the key."""
    return once("settings", _load)


def _load() -> Settings:
    configured = getattr(settings, "CLOUDRUN_JOBS", {})
    if not isinstance(configured, Mapping):
        raise InvalidSettings(f"CLOUDRUN_JOBS: expected a dictionary, got {type(configured).__name__}.")
    for key in configured:
        if key not in KEYS:
            raise InvalidSettings(f"CLOUDRUN_JOBS: unknown key {key!r}.", hint=did_you_mean(str(key), KEYS))
    values = {f"CLOUDRUN_JOBS[{key!r}]": (key, value) for key, value in configured.items()}
    values |= {f"{PREFIX}{key}": (key, value) for key, value in _from_environment()}
    valid = {key.lower(): _valid(where, key, value) for where, (key, value) in values.items()}
    inline = valid.get("environment", "local") in INLINE_ENVIRONMENTS
    return Settings(**{"backend": INLINE_BACKEND if inline else CLOUDRUN_BACKEND, **valid})


def is_test_mode() -> bool:
    """Return True if the environment variable enables test mode. Raises `InvalidSettings`."""
    value = os.environ.get(TEST_MODE_VARIABLE, "")
    if value not in TEST_MODES:
        raise InvalidSettings(f"{TEST_MODE_VARIABLE}: expected '1' or '0', got {value!r}.")
    return TEST_MODES[value]


def setting_name(key: str, *below: str) -> str:
    """Return the name of a setting for a message: its key, or the environment variable that overrides it."""
    name = f"{PREFIX}{key}"
    return (name if name in os.environ else f"CLOUDRUN_JOBS[{key!r}]") + "".join(f"[{part!r}]" for part in below)


def unrecognised_settings() -> Iterator[tuple[str, str]]:
    """Yield the names of settings that look like this package's but are not, each with a hint."""
    from difflib import get_close_matches  # Takes a millisecond, and only the system checks need it.

    names = [name for name in dir(settings) if name != "CLOUDRUN_JOBS"]
    for name in names:
        key = name.removeprefix(PREFIX)
        if name.startswith(PREFIX) and key in KEYS:
            yield name, f"Write CLOUDRUN_JOBS = {{{key!r}: ...}}; {name} is the name of an environment variable."
    if not hasattr(settings, "CLOUDRUN_JOBS"):
        for name in get_close_matches("CLOUDRUN_JOBS", names, cutoff=0.8):
            yield name, "Did you mean 'CLOUDRUN_JOBS'?"


def _from_environment() -> Iterator[tuple[str, Any]]:
    """Yield the keys set as environment variables; dictionaries are JSON objects there."""
    for name in os.environ:
        key = name.removeprefix(PREFIX)
        if name.startswith(PREFIX) and name != TEST_MODE_VARIABLE and key not in EXECUTION_KEYS:
            # With a misspelt ENVIRONMENT, production would run its jobs inside requests.
            if key not in KEYS:
                hint = did_you_mean(name, [PREFIX + known for known in KEYS])
                raise InvalidSettings(f"{name}: unknown variable of this package.", hint=hint)
            value = os.environ[name]
            is_json = key in MAPPINGS or (key == "SECRETS" and value.lstrip().startswith("{"))
            yield key, _from_json(key, value) if is_json else value


def _from_json(key: str, text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        problem = str(error)
    # Not in the block above: the original error contains the text, which may contain secrets.
    raise InvalidSettings(f"CLOUDRUN_JOBS_{key}: expected a JSON object; {problem}.")


def _valid(where: str, key: str, value: Any) -> Any:
    if key == "SECRETS":
        return _valid_secrets(where, value)
    if key in MAPPINGS:
        if not isinstance(value, Mapping):
            raise InvalidSettings(f"{where}: expected a dictionary, got {type(value).__name__}.")
        return MappingProxyType(dict(value))
    pattern, expected = PATTERNS[key]
    if not isinstance(value, str) or not re.fullmatch(pattern, value):
        raise InvalidSettings(f"{where}: expected {expected}, got {value!r}.")
    return value


def _valid_secrets(where: str, value: Any) -> LocalSecrets | Path | None:
    if value is None:
        return None
    expected = "a dictionary of secrets by name, or the path of a JSON file"
    with suppress(Exception):  # The error of a value that cannot be copied, or of "~unknown", may show it.
        if isinstance(value, Mapping):
            expected = "texts as the values of secrets"
            return LocalSecrets(dict(value))
        if isinstance(value, str | Path) and str(value).strip() and b"\0" not in os.fsencode(value):
            expected = "a path in a known home directory"
            return Path(value).expanduser()
    raise InvalidSettings(f"{where}: expected {expected}, got {type(value).__name__}.")
