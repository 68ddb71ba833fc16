"""Determine which of a command's options were given, and which have their default value."""

from __future__ import annotations

import copy
from argparse import (
    OPTIONAL,
    SUPPRESS,
    Action,
    ArgumentError,
    ArgumentParser,
    FileType,
    Namespace,
    _AppendAction,
    _AppendConstAction,
    _SubParsersAction,
)
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple

from django.core.exceptions import ImproperlyConfigured

from cloudrun_jobs import conf
from cloudrun_jobs.argv.redaction import HIDDEN, MIN_SECRET_LENGTH, is_secret, mark, redact
from cloudrun_jobs.exceptions import InvalidArguments

if TYPE_CHECKING:
    from cloudrun_jobs.argv.parsing import Parsable
    from cloudrun_jobs.argv.secret_ref import SecretRef

# Imported at the start of every job, unlike the modules that write arguments.

REFERENCE_HINT = "Store the value in Secret Manager, and pass SecretRef('name'), or secret:name as text."

# The attribute of commands and parsers that holds their `Reading`: no attribute of a user's class has a space.
KEY = "cloudrun_jobs reading"


class Use(NamedTuple):
    """An argument on the command line: `--day=2026-01-02`, or a positional."""

    action: Action
    texts: tuple[str, ...]

    @property
    def is_custom(self) -> bool:
        """Return True if the action may set any option."""
        return type(self.action).__module__ != "argparse"

    def is_default_of(self, action: Action) -> bool:
        """Return True if the text is the default: types may return objects that equal nothing else."""
        is_one_text = action.nargs in (None, OPTIONAL) and not self.is_custom
        return is_one_text and self.action is action and self.texts == (action.default,)


class Reading:
    """What a parser read last, with the defaults of that time: `default=timezone.now()` changes."""

    def __init__(self, parser: ArgumentParser, secret_options: Collection[str]) -> None:
        self._parser = parser
        self._parse = parser.parse_known_args
        self._uses: list[Use] = []
        self._values: dict[str, Any] = {}
        self._has_secrets = bool(secret_options)
        self.is_request = False  # True if the arguments are recorded and sent: plain secrets are rejected.
        vars(parser).update({KEY: self, "parse_known_args": self._parse_known_args})
        if secret_options:
            mark(chain.from_iterable(each._actions for each in _with_subparsers(parser)), secret_options)

    def given(self, options: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
        """Yield the options that differ from their default, however they were given; of lists, what was added."""
        for name, value in options.items():
            defaults = [*self._defaults(name)]
            if (name != "args" or value) and not any(_equal(value, default) for default in defaults):
                yield name, _added(value, defaults) if self._appends(name) else value

    def texts(self, name: str, value: Any) -> list[list[str]]:
        """Return what the command line says of an option; nothing if its value is from another source."""
        if not _equal(value, self._values.get(name)):
            return []
        uses = [use for use in self._uses if use.action.dest == name or use.is_custom]
        if not self._appends(name) and not any(use.is_custom for use in uses):
            uses = uses[-1:]  # The last one replaces the others.
        return [[*use.action.option_strings[:1], *use.texts] for use in uses]

    def dests(self) -> frozenset[str]:
        """Return the names of the values that parsing may produce."""
        from cloudrun_jobs.argv import dests

        return dests(self._parser)

    def declares(self, name: str) -> bool:
        """Return True if an argument has this name, so that the command line can give it."""
        return bool(self._actions(name))

    def subcommands(self) -> list[str]:
        """Return the names of the chosen subcommands that are no option's value."""
        choices = [use for use in self._choices() if use.action.dest == SUPPRESS]
        # An alias is another name for the same parser.
        return [next(name for name, parser in _parsers(use) if parser is _chosen(use)) for use in choices]

    def redact(self, arguments: Sequence[str]) -> list[str]:
        """Return the arguments that the parser read last, without the values of secret options."""
        return redact(arguments, self.plain_secrets())

    def plain_secrets(self) -> set[str]:
        """Return the plain values of secret options that the parser read last."""
        texts = (text for use in self._uses if is_secret(use.action) for text in use.texts)
        return {text for text in texts if _reference(text) is None}

    def convert(self, name: str, reference: SecretRef, text: str) -> Any:
        """Convert the text of a secret to the option's value. Raises what the option's type raises."""
        argument = reference.encode()
        uses = [use.action for use in self._uses if use.action.dest == name and argument in use.texts]
        for action in (*uses, *(action for action in self._actions(name) if action.nargs != 0)):
            parser = next(parser for parser in self._chain() if action in parser._actions)
            value = parser._get_value(action, text)
            if action.choices is not None:
                parser._check_value(action, value)
            return value
        return text

    def _defaults(self, name: str) -> Iterator[Any]:
        uses = [use for use in self._uses if use.action.dest == name]
        if not uses and name in self._values and not any(use.is_custom for use in self._uses):
            yield self._values[name]
            return
        for parser in reversed(self._chain()):  # A subcommand's default replaces one above it.
            for action in parser._actions:
                if action.dest == name and action.default is not SUPPRESS:
                    if uses and uses[-1].is_default_of(action):
                        yield self._values.get(name)
                    yield from _default_values(parser, action)
                    return
            if name in parser._defaults:
                yield parser._defaults[name]
                return

    def _actions(self, name: str) -> list[Action]:
        return [action for parser in self._chain() for action in parser._actions if action.dest == name]

    def _appends(self, name: str) -> bool:
        return any(isinstance(action, _AppendAction | _AppendConstAction) for action in self._actions(name))

    def _chain(self) -> list[ArgumentParser]:
        """Return the command's parser and those of the chosen subcommands."""
        return [self._parser, *map(_chosen, self._choices())]

    def _choices(self) -> list[Use]:
        return [use for use in self._uses if isinstance(use.action, _SubParsersAction)]

    def _parse_known_args(
        self, args: Sequence[str] | None = None, namespace: Namespace | None = None
    ) -> tuple[Namespace, list[str]]:
        with self._recording():
            parsed, rest = self._parse(args, namespace)
        self._values = dict(vars(parsed))
        return parsed, rest

    @contextmanager
    def _recording(self) -> Iterator[None]:
        """Record all uses of arguments: argparse looks up the method that converts them on each parser."""
        self._uses = []
        with ExitStack() as stack:
            for parser in dict.fromkeys(_with_subparsers(self._parser)):
                vars(parser)["_get_values"] = partial(self._get_values, parser._get_values)
                stack.callback(vars(parser).pop, "_get_values", None)
                if self._has_secrets:
                    stack.enter_context(_references_kept(parser))
            yield

    def _get_values(self, convert: Any, action: Action, texts: list[str]) -> Any:
        given = tuple(text for text in texts if text != "--" or action.option_strings)
        if given or action.option_strings:  # argparse also passes positionals that are left out.
            self._uses.append(Use(action, given))
        if not is_secret(action):
            return convert(action, texts)
        for text in given:
            self._check_secret(action, text)
        with suppress(Exception):  # The messages of argparse and of types repeat the value.
            return convert(action, texts)
        raise ArgumentError(action, f"invalid value: {HIDDEN}")

    def _check_secret(self, action: Action, text: str) -> None:
        if _reference(text) is not None:
            return
        if self.is_request:
            message = f"{action.dest}: expected a SecretRef, got a plain value, which would be recorded."
            raise InvalidArguments(message, hint=REFERENCE_HINT)
        if text == HIDDEN:
            raise ArgumentError(action, f"expected a value, got {HIDDEN}: the value was not recorded")
        if len(text.strip()) < MIN_SECRET_LENGTH:
            raise ArgumentError(action, f"expected a value of at least {MIN_SECRET_LENGTH} characters")


def _reference(text: str) -> SecretRef | None:
    from cloudrun_jobs.argv.secret_ref import SecretRef  # Most jobs have no secret options.

    return SecretRef.decode(text)


def _is_reference(value: object) -> bool:
    from cloudrun_jobs.argv.secret_ref import SecretRef

    return isinstance(value, SecretRef)


@contextmanager
def _references_kept(parser: ArgumentParser) -> Iterator[None]:
    """Make the parser return references to secrets unchanged, without applying the option's type and choices."""

    def get_value(action: Action, text: str) -> Any:
        reference = _reference(text) if is_secret(action) else None
        return convert(action, text) if reference is None else reference

    def check_value(action: Action, value: Any) -> None:
        if not is_secret(action) or not _is_reference(value):
            check(action, value)

    convert, check = parser._get_value, parser._check_value
    overrides = {"_get_value": get_value, "_check_value": check_value}
    earlier = {name: vars(parser)[name] for name in overrides if name in vars(parser)}
    vars(parser).update(overrides)
    try:
        yield
    finally:
        for name in overrides:
            del vars(parser)[name]
        vars(parser).update(earlier)


def remember(command: Parsable, parser: ArgumentParser) -> None:
    """Have the command remember what this parser reads."""
    vars(command)[KEY] = vars(parser).get(KEY) or Reading(parser, _secret_options(command))


def _secret_options(command: Parsable) -> Collection[str]:
    declared = getattr(command, "secret_options", None)
    if declared is None:
        try:
            declared = conf.load().defaults.get("secret_options")
        except ImproperlyConfigured:  # No job can run; the parser may still print its help.
            declared = None
    return declared or ()


def reading_of(command: Parsable) -> Reading:
    """Return what the command's parser read; if no parser started the command, what a new one declares."""
    if KEY not in vars(command):
        from cloudrun_jobs.argv import parser_of

        command = copy.copy(command)
        remember(command, parser_of(command))
    reading: Reading = vars(command)[KEY]
    return reading


def _with_subparsers(parser: ArgumentParser) -> Iterator[ArgumentParser]:
    yield parser
    for action in parser._actions:
        if isinstance(action, _SubParsersAction):
            for subparser in action.choices.values():
                yield from _with_subparsers(subparser)


def _default_values(parser: ArgumentParser, action: Action) -> Iterator[Any]:
    yield action.default
    if isinstance(action.default, str) and not isinstance(action.type, FileType):
        try:
            yield parser._get_value(action, action.default)
        except Exception:  # noqa: BLE001  (a type may raise anything for text that it rejects)
            return


def _added(value: Any, defaults: Sequence[Any]) -> Any:
    """Return the items after those of the default, to which argparse appends; without a default, the value."""
    lists = (default for default in defaults if default and isinstance(default, list | tuple))
    for default in lists if isinstance(value, list) else ():
        if _equal(value[: len(default)], default):
            return {"added": value[len(default) :]}
    return value


def _chosen(use: Use) -> ArgumentParser:
    """Return the parser of the subcommand."""
    return dict(_parsers(use))[use.texts[0]]


def _parsers(use: Use) -> Iterable[tuple[str, ArgumentParser]]:
    choices: Any = use.action.choices  # Of subcommands, it is a dictionary.
    items: Iterable[tuple[str, ArgumentParser]] = choices.items()
    return items


def _equal(value: Any, other: Any) -> bool:
    """Return True if the values are equal, and not 1 and True."""
    if value is other:
        return True
    if isinstance(value, list | tuple) and isinstance(other, list | tuple):
        return len(value) == len(other) and all(map(_equal, value, other))
    try:
        equal = bool(value == other or (value != value and other != other))
    except Exception:  # noqa: BLE001  (the value's own comparison, as of arrays)
        return False
    return equal and isinstance(value, bool) == isinstance(other, bool)
