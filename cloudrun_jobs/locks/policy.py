"""The locks that a run requires, and their keys."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from django.core.management.base import BaseCommand

from cloudrun_jobs.argv.reading import Reading
from cloudrun_jobs.argv.redaction import HIDDEN
from cloudrun_jobs.argv.secret_ref import SecretRef
from cloudrun_jobs.exceptions import DeclarationError, InvalidArguments, InvalidJob
from cloudrun_jobs.locks import names
from cloudrun_jobs.locks.names import LockName
from cloudrun_jobs.spec.job import JobSpec
from cloudrun_jobs.suggestions import did_you_mean

# Options that every command has; they do not identify a run.
DJANGO_OPTIONS = frozenset(
    {"verbosity", "settings", "pythonpath", "traceback", "no_color", "force_color", "skip_checks"}
).union(BaseCommand.base_stealth_options)


class RequiredLock(NamedTuple):
    """A lock that a run requires, and what the run does while it is held: "skip", "wait" or "fail"."""

    name: LockName
    slots: int
    policy: str
    identifies_run: bool = False  # Whether the arguments determine the name.


def required_locks(
    spec: JobSpec, options: Mapping[str, Any], get_lock_key: Callable[..., Any]
) -> Iterator[RequiredLock]:
    """Yield the locks that a run with these options requires, in the order in which every run acquires them.

    Raises `InvalidArguments` or `InvalidJob` if the options make no key.
    """
    if spec.overlap != "allow":
        own = {name: value for name, value in options.items() if name not in DJANGO_OPTIONS}
        own |= {name: without_secrets(own[name]) for name in spec.secret_options if name in own}
        yield RequiredLock(
            _arguments_lock(spec, own, get_lock_key), slots=1, policy=spec.overlap, identifies_run=True
        )
    if spec.parallelism is not None:
        yield RequiredLock(names.for_job(spec.command), slots=spec.parallelism, policy="wait")


def without_secrets(value: Any) -> Any:
    """Return a secret option's value for a lock key, with references as texts, and plain values redacted."""
    if isinstance(value, list | tuple):
        return [without_secrets(item) for item in value]
    if value is None or isinstance(value, bool):
        return value
    return value.encode() if isinstance(value, SecretRef) else HIDDEN


def lock_arguments(
    command: str, lock_args: Sequence[str] | None, options: Mapping[str, Any], reading: Reading
) -> dict[str, Any]:
    """Return the options that identify a run: those that differ from their default. Raises `InvalidJob`."""
    for name in lock_args or ():
        if name not in options and name not in (known := reading.dests()):
            hint = did_you_mean(name, known)
            expected = "names of the job's options"
            error = DeclarationError(attribute="lock_args", expected=expected, got=name, hint=hint)
            raise InvalidJob(command, [error])
    given = {name: value for name, value in reading.given(options) if lock_args is None or name in lock_args}
    identity = dict(_with_json_form(given, options, reading))
    if lock_args is None and (subcommands := reading.subcommands()):
        identity[""] = subcommands  # No option has this name.
    return identity


def _with_json_form(
    given: Mapping[str, Any], options: Mapping[str, Any], reading: Reading
) -> Iterator[tuple[str, Any]]:
    """Replace values without a JSON form by their texts; leave out those that no command line can express."""
    for name, value in given.items():
        if names.has_json_form(value):
            yield name, value
        elif texts := reading.texts(name, options[name]):
            yield name, {"texts": texts}
        elif reading.declares(name):
            yield name, value  # It makes no key, and is rejected.


def _arguments_lock(spec: JobSpec, options: Mapping[str, Any], get_lock_key: Callable[..., Any]) -> LockName:
    try:
        return names.for_arguments(spec.command, get_lock_key(**options))
    except (TypeError, ValueError, RecursionError) as error:
        message = f"{spec.command}: these options make no lock key"
        hint = "List in lock_args the options that matter, or return plain values from get_lock_key()."
        if spec.secret_options:
            raise InvalidArguments(f"{message}.", hint=hint) from None  # The error may repeat a secret value.
        raise InvalidArguments(f"{message}: {error}.", hint=hint) from error
