"""Resolve the secret options of a run, and mask their values in what it records and raises."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from decimal import Decimal
from functools import partial
from pathlib import PurePath
from types import TracebackType
from typing import TYPE_CHECKING, Any
from uuid import UUID

from django.core.management.base import OutputWrapper

from cloudrun_jobs.argv.reading import Reading, reading_of
from cloudrun_jobs.argv.redaction import HIDDEN, MASK, MIN_SECRET_LENGTH, is_protecting, mask, protect, release
from cloudrun_jobs.argv.secret_ref import SecretRef
from cloudrun_jobs.exceptions import InvalidArguments, InvalidSecret, JobFailed, SecretError

if TYPE_CHECKING:
    from cloudrun_jobs.execution.active import ActiveRun
    from cloudrun_jobs.spec.command import JobCommand

# Replaces a plain value while arguments are serialised: their parser accepts any reference.
PLAIN_VALUE = SecretRef("cloudrun_jobs-plain-value")

# Attributes of built-in exceptions that are in their messages, but not in `vars()`.
MESSAGE_ATTRIBUTES = (
    "filename",
    "filename2",
    "strerror",
    "object",
    "reason",
    "text",
    "name",
    "obj",
    "code",
    "value",
)


@contextmanager
def protected(
    job: JobCommand, active: ActiveRun, args: tuple[Any, ...], options: Mapping[str, Any], *, ends_process: bool
) -> Iterator[None]:
    """Mask the plain values of the run's secret options, and those that `resolve()` adds, until the run ends.

    If the process ends with the run, they stay masked: the traceback is printed afterwards.
    """
    failure: BaseException | None = None
    try:
        _protect(active, _plain_values(job, args, options))
        _mask_output(job)
        if ends_process and sys.excepthook is sys.__excepthook__:  # On Cloud Run, the hook of `logs` masks.
            sys.excepthook = _print_masked
        yield
    except BaseException as error:
        mask_error(error)
        if ends_process or not _shows_value(error):
            raise
        failure = error
    finally:
        shown = "" if failure is None else mask(f"{type(failure).__name__}: {failure}")
        if not ends_process:
            release(active.protected)
    if shown:  # The exception computes its text, which would show the value.
        raise JobFailed(shown) from None


def resolve(
    job: JobCommand, active: ActiveRun, args: tuple[Any, ...], options: Mapping[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the arguments of `run()`, with the values of secrets in place of references to them.

    Raises `SecretError` and `InvalidArguments`.
    """
    resolved = {**options, "args": args}
    for name in job.spec.secret_options:
        if name in resolved:

            def value_of(reference: SecretRef, name: str = name) -> Any:
                return _resolve(job, active, name, reference)

            resolved[name] = _replaced(resolved[name], value_of)
    args = tuple(resolved.pop("args"))
    return args, resolved


def without_values(
    job: JobCommand, args: tuple[Any, ...], options: Mapping[str, Any]
) -> tuple[Any, dict[str, Any]]:
    """Replace plain values of secret options with `PLAIN_VALUE`, and drop default values."""
    shown, reading = {**options, "args": args}, reading_of(job)
    for name in job.spec.secret_options:
        if name in shown and not dict(reading.given({name: shown[name]})):
            del shown[name]
        elif name in shown:
            shown[name] = _hidden(shown[name])
    return tuple(shown.pop("args", ())), shown


def redacted(arguments: list[str]) -> list[str]:
    """Redact `PLAIN_VALUE`, and every protected value, in serialised arguments."""
    hidden = [argument.replace(PLAIN_VALUE.encode(), HIDDEN) for argument in arguments]
    return [argument if mask(argument) == argument else HIDDEN for argument in hidden]


def _mask_output(job: JobCommand) -> None:
    """Mask what the command writes to its streams while values are protected. Log entries are masked anyway."""
    for stream in (job.stdout, job.stderr):
        if type(stream) is OutputWrapper and "write" not in vars(stream):
            vars(stream)["write"] = partial(_write, stream.write)


def _write(write: Callable[..., None], msg: str = "", *args: Any, **options: Any) -> None:
    write(mask(msg) if isinstance(msg, str) else msg, *args, **options)


def _print_masked(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    sys.stderr.write(mask("".join(traceback.format_exception(kind, error, trace))))


def mask_error(error: BaseException) -> None:
    """Mask the texts of an exception, of its causes, and of the exceptions in a group."""
    left, seen = [error] if is_protecting() else [], set[int]()
    while left:
        if id(error := left.pop()) not in seen:
            seen.add(id(error))
            _mask_attributes(error)
            left += filter(None, (error.__cause__, error.__context__, *getattr(error, "exceptions", ())))


def _mask_attributes(error: BaseException) -> None:
    for name in ("args", "__notes__", *vars(error), *MESSAGE_ATTRIBUTES):
        with suppress(Exception):  # The attribute is missing or read-only.
            value = getattr(error, name)
            shown = _masked(value)
            if shown != value:
                setattr(error, name, shown)


def _masked(value: Any) -> Any:
    """Return the value with its texts masked, for one of an exception's attributes."""
    if isinstance(value, str):
        return mask(value)
    if isinstance(value, bytes):
        text = value.decode(errors="surrogateescape")
        return value if mask(text) == text else MASK.encode()
    if isinstance(value, list | tuple) and type(value) in (list, tuple):
        return type(value)(map(_masked, value))
    if type(value) is dict:
        return {_masked(key): _masked(item) for key, item in value.items()}
    is_number = isinstance(value, int | float | Decimal) and not isinstance(value, bool)
    return MASK if is_number and mask(str(value)) != str(value) else value


def _shows_value(error: BaseException) -> bool:
    try:
        shown = f"{type(error).__name__}: {error}"
        return mask(shown) != shown
    except Exception:  # noqa: BLE001  (an error's own __str__ may raise anything)
        return False


def _plain_values(job: JobCommand, args: tuple[Any, ...], options: Mapping[str, Any]) -> Iterator[str]:
    """Yield the plain values of secret options as texts. Raises `InvalidArguments` for one that is too short."""
    reading = reading_of(job)
    yield from reading.plain_secrets()
    given = {**options, "args": args}
    for name in job.spec.secret_options:
        value = given.get(name)
        for text in _texts(value):
            # The parser has checked the values that it has read, and default values are the command's own.
            if (
                len(text.strip()) < MIN_SECRET_LENGTH
                and isinstance(value, str)
                and _is_passed(reading, name, value)
            ):
                expected = f"expected a value of at least {MIN_SECRET_LENGTH} characters"
                raise InvalidArguments(f"{job.command_name}: {name}: {expected}: shorter values cannot be masked.")
            yield text


def _is_passed(reading: Reading, name: str, value: str) -> bool:
    """Return True if `call_command()` has passed the value, so that no parser has read it."""
    return bool(dict(reading.given({name: value}))) and not reading.texts(name, value)


def _resolve(job: JobCommand, active: ActiveRun, name: str, reference: SecretRef) -> Any:
    from cloudrun_jobs.secrets import access  # Most jobs read no secret.

    where = f"{job.command_name}: {name}"
    try:
        text = access.read(reference)
    except SecretError as error:
        raise type(error)(f"{where}: {error.args[0]}", hint=error.hint) from None
    if len(text.strip()) < MIN_SECRET_LENGTH:
        expected = f"expected at least {MIN_SECRET_LENGTH} characters in the secret {reference.reference!r}"
        raise InvalidSecret(f"{where}: {expected}: shorter values cannot be masked.", hint="Store a longer value.")
    _protect(active, [text])
    values = []
    with suppress(Exception):  # The messages of argparse and of types repeat the value.
        values = [reading_of(job).convert(name, reference, text)]
    if not values:
        message = f"{where}: the option's type or choices reject the value of the secret {reference.reference!r}"
        raise InvalidArguments(f"{message}.")
    _protect(active, _texts(values[0]))
    return values[0]


def _protect(active: ActiveRun, values: Any) -> None:
    texts = list(values)
    active.protected += texts
    protect(texts)


def _texts(value: Any) -> Iterator[str]:
    """Yield the texts in the value of an option."""
    if isinstance(value, bytes):
        yield value.decode(errors="replace")
    elif isinstance(value, str | int | float | Decimal | UUID | PurePath) and not isinstance(value, bool):
        yield str(value)
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _texts(item)
    elif isinstance(value, list | tuple | set | frozenset):
        for item in value:
            yield from _texts(item)


def _replaced(value: Any, value_of: Callable[[SecretRef], Any]) -> Any:
    if isinstance(value, SecretRef):
        return value_of(value)
    return type(value)(_replaced(item, value_of) for item in value) if type(value) in (list, tuple) else value


def _hidden(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_hidden(item) for item in value]
    return value if value is None or isinstance(value, bool | SecretRef) else PLAIN_VALUE
