"""Read and update secrets."""

from __future__ import annotations

import logging

from cloudrun_jobs.argv.secret_ref import SecretRef
from cloudrun_jobs.exceptions import (
    InvalidSecret,
    SecretAccessDenied,
    SecretConflict,
    SecretError,
    SecretNotFound,
)
from cloudrun_jobs.secrets import cache, stores
from cloudrun_jobs.secrets.payload import Payload, Version, checked_name, payload_of, problem_of, reference
from cloudrun_jobs.secrets.stores import Latest, Store

logger = logging.getLogger("cloudrun_jobs")


def read(secret: str | SecretRef) -> str:
    """Return the value of a secret as text: `read("partner-token")` or `read("partner-token:3")`.

    Without a version, return the newest enabled one. A value from Secret Manager is at most a minute old.

    Raises a subclass of `SecretError`, such as `InvalidSecret` if the value is not UTF-8.
    """
    version = _access(secret, is_fresh=False)
    try:
        return version.payload.data.decode()
    except UnicodeDecodeError:
        pass
    name = reference(secret)[0]
    message = f"{name}: expected text, but version {version.number} is not UTF-8."
    raise InvalidSecret(message, hint="Use secrets.read_bytes().")


def read_bytes(secret: str | SecretRef) -> bytes:
    """Return the value of a secret as bytes; see `read()`."""
    return _access(secret, is_fresh=False).payload.data


def latest_version(name: str) -> int:
    """Return the number of the newest enabled version, for `expected` of `update()`. It is never cached.

    Raises a subclass of `SecretError`.
    """
    return _access(checked_name(name), is_fresh=True).number


def update(
    name: str, value: str | bytes, *, expected: int | None = None, create: bool = False, keep: int | None = None
) -> int:
    """Add a version to a secret and return its number.

    `expected`: the number of the newest enabled version, 0 for none; if another update came first,
    `SecretConflict` is raised. `create`: create the secret if it does not exist. `keep`: disable the versions
    older than the newest `keep` enabled ones.

    Raises a subclass of `SecretError`.
    """
    problem = problem_of(value)
    payload = Payload(b"") if problem else payload_of(value)
    del value  # A traceback with local variables must not show it.
    name = checked_name(name)
    _check_options(name, problem, expected, keep)
    store = stores.configured()
    since = cache.clock()
    try:
        with store.exclusive():
            number = _add(store, name, payload, expected, create)
            if keep is not None:
                _disable_older(store, name, number, keep)
    except SecretConflict:
        cache.discard(store.identity, name)  # The caller reads the secret again.
        raise
    if store.is_remote:
        cache.put((store.identity, name, None), Version(number, payload), since)
    return number


def _check_options(name: str, problem: str, expected: object, keep: object) -> None:
    if problem:
        raise InvalidSecret(f"{name}: {problem}. Nothing was sent.")
    for option, number, minimum in (("expected", expected, 0), ("keep", keep, 1)):
        if number is None:
            continue
        if not isinstance(number, int) or isinstance(number, bool) or number < minimum:
            # The error must not show a secret that was passed by mistake.
            got = number if isinstance(number, int | float) else type(number).__name__
            raise InvalidSecret(f"{name}: {option}: expected a number of at least {minimum}, got {got}.")


def _access(secret: str | SecretRef, *, is_fresh: bool) -> Version:
    name, number = reference(secret)
    store = stores.configured()
    if not store.is_remote:
        return store.access(name, number)
    key = (store.identity, name, number)
    found = None if is_fresh else cache.get(key)
    if found is None:
        since = cache.clock()
        found = store.access(name, number)
        cache.put(key, found, since)
    return found


def _add(store: Store, name: str, payload: Payload, expected: int | None, create: bool) -> int:
    before = _latest(store, name, is_required=expected is not None)
    if before is not None and expected is not None and before.enabled != expected:
        newest = f"the newest is {before.enabled}" if before.enabled else "there is none"
        raise _conflict(name, expected, f"{newest}. Nothing was added.")
    try:
        number = store.add(name, payload, before)
    except SecretNotFound:
        if not create:
            raise
        store.create(name)
        number = store.add(name, payload, before)
    if before is not None and expected is not None and number != before.highest + 1:
        _withdraw(store, name, expected, before.highest + 1, number)
    return number


def _latest(store: Store, name: str, *, is_required: bool) -> Latest | None:
    """Return the newest versions; None if they are not required and the account may only add versions."""
    try:
        return store.latest(name)
    except SecretAccessDenied:
        if is_required:
            raise
        return None


def _withdraw(store: Store, name: str, expected: int, first: int, number: int) -> None:
    """Disable the version that lost the race, and raise `SecretConflict`."""
    failure = ""
    try:
        store.disable(name, number)
    except SecretError as error:
        failure = str(error)
    if failure:
        message = f"it was replaced by version {first}, and version {number} of this update could not be disabled"
        raise _conflict(name, expected, f"{message}: {failure}")
    raise _conflict(
        name, expected, f"it was replaced by version {first}. Version {number} of this update is disabled."
    )


def _conflict(name: str, expected: int, message: str) -> SecretConflict:
    hint = "Read the secret again, and repeat the update if it is still needed."
    return SecretConflict(f"{name}: expected version {expected} to be the newest, but {message}", hint=hint)


def _disable_older(store: Store, name: str, number: int, keep: int) -> None:
    """Disable old versions, never this one or a newer one. Log a failure instead of raising it."""
    try:
        for old in [each for each in store.enabled(name) if each <= number][keep:]:
            store.disable(name, old)
    except SecretError as error:
        data = {"action": "secret_versions_kept", "secret": name, "version": number}
        logger.warning("Old versions of secret %s were not disabled: %s", name, error, extra=data)
