"""Bind values to the arguments of the command's parser, subcommands included."""

from __future__ import annotations

from argparse import (
    PARSER,
    REMAINDER,
    SUPPRESS,
    Action,
    ArgumentParser,
    BooleanOptionalAction,
    FileType,
    _CountAction,
    _HelpAction,
    _SubParsersAction,
    _VersionAction,
)
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from django.core.management.base import BaseCommand

from cloudrun_jobs.exceptions import InvalidArguments
from cloudrun_jobs.suggestions import closest, did_you_mean

SEVERAL = ("*", "+", REMAINDER, PARSER)

# manage.py consumes these two wherever they stand before `--`.
MANAGE_OPTIONS = {"--settings": "DJANGO_SETTINGS_MODULE", "--pythonpath": "PYTHONPATH"}


class Level(NamedTuple):
    """A parser, the values of its own arguments by `dest`, and its chosen subcommand."""

    parser: ArgumentParser
    values: dict[str, Any]
    subcommand: str | None

    def actions(self, dest: str) -> list[Action]:
        return [action for action in _named(self.parser) if action.dest == dest]

    def positionals(self) -> list[Action]:
        return _positionals(self.parser)


def bind(parser: ArgumentParser, args: Sequence[Any], options: Mapping[str, Any]) -> list[Level]:
    """Return the levels, from the command's parser to the last subcommand's."""
    levels, unknown, surplus = _bind(parser, list(args), dict(options))
    if unknown:
        raise _unknown_option(next(iter(unknown)), [name for level in levels for name in _names(level.parser)])
    if surplus:
        raise _too_many(len(surplus), takes=sum(len(level.positionals()) for level in levels))
    return levels


def _bind(
    parser: ArgumentParser, args: list[Any], options: dict[str, Any]
) -> tuple[list[Level], dict[str, Any], list[Any]]:
    _reject_shared_dest(_positionals(parser))
    values, args = _bind_positionals(_positionals(parser), args)
    below: list[Level] = []
    subcommand, args = _subcommand(parser, args, options)
    if subcommand is not None:
        # argparse lets a subcommand's option win over one of the same dest above it.
        below, options, args = _bind(subparser(parser, subcommand), args, options)
    named, options = _bind_names(parser, options)
    if both := sorted(values.keys() & named.keys()):
        raise InvalidArguments(f"Got {both[0]!r} by position and by name.")
    return [Level(parser, values | named, subcommand), *below], options, args


def _bind_positionals(actions: list[Action], args: list[Any]) -> tuple[dict[str, Any], list[Any]]:
    """Give each positional one argument; the last takes all that are left if it takes several."""
    values: dict[str, Any] = {}
    for action in actions:
        if not args:
            break
        flat = takes_several(action) and action is actions[-1] and not isinstance(args[0], list | tuple)
        count = len(args) if flat else 1
        values[action.dest] = args[:count] if flat else args[0]
        args = args[count:]
    return values, args


def _reject_shared_dest(actions: list[Action]) -> None:
    dests = [action.dest for action in actions]
    if shared := next((dest for dest in dests if dests.count(dest) > 1), None):
        raise InvalidArguments(f"Two positionals are both called {shared!r}, so one of them cannot be given.")


def _bind_names(parser: ArgumentParser, options: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    names = _names(parser)
    mine: dict[str, Any] = {}
    for name in [name for name in options if name in names]:
        if names[name] in mine:
            raise InvalidArguments(f"Got {names[name]!r} twice, once as {name!r}.")
        mine[names[name]] = options[name]
    return mine, {name: value for name, value in options.items() if name not in names}


def _subcommand(parser: ArgumentParser, args: list[Any], options: dict[str, Any]) -> tuple[str | None, list[Any]]:
    """Return the subcommand's name, from the options or the next argument, and the remaining arguments."""
    action = subparsers(parser)
    if action is None:
        return None, args
    if action.dest != SUPPRESS and action.dest in options:
        return options.pop(action.dest), args
    return (args[0], args[1:]) if args else (None, args)


def subparser(parser: ArgumentParser, name: object) -> ArgumentParser:
    """Return the parser of the subcommand. Raises `InvalidArguments`."""
    action = subparsers(parser)
    choices: dict[str, ArgumentParser] = dict(action.choices or {}) if action else {}
    if not isinstance(name, str) or name not in choices:
        hint = did_you_mean(str(name), choices)
        raise InvalidArguments(f"{name!r} is not a subcommand.", hint=hint)
    return choices[name]


def subparsers(parser: ArgumentParser) -> _SubParsersAction[ArgumentParser] | None:
    return next((action for action in parser._actions if isinstance(action, _SubParsersAction)), None)


def _named(parser: ArgumentParser) -> list[Action]:
    """Return the arguments that have values; argparse has no public list of them."""
    others = (_HelpAction, _VersionAction, _SubParsersAction)
    return [action for action in parser._actions if not isinstance(action, others)]


def own_arguments(parser: ArgumentParser) -> list[Action]:
    """Return the arguments that the job declares, without those of every command."""
    django = {
        name for action in BaseCommand().create_parser("manage.py", "")._actions for name in action.option_strings
    }
    named = [action for action in _named(parser) if not belongs_to_manage(action)]
    return [
        action for action in named if not action.option_strings or not django.issuperset(action.option_strings)
    ]


def _positionals(parser: ArgumentParser) -> list[Action]:
    return [action for action in _named(parser) if not action.option_strings]


def _names(parser: ArgumentParser) -> dict[str, str]:
    """Map every keyword to its dest: the dest itself, and the option strings as `call_command` spells them."""
    actions = [action for action in _named(parser) if not belongs_to_manage(action)]
    spelled = {
        option.lstrip(parser.prefix_chars).replace("-", "_"): action.dest
        for action in actions
        for option in action.option_strings
        # "--no-x" is the opposite of its dest, and "-x" is not a readable keyword.
        if action.nargs != 0 and len(option) > 2
    }
    return spelled | {action.dest: action.dest for action in actions}


def dests(parser: ArgumentParser) -> frozenset[str]:
    """Return the names of the values that parsing may produce, those of subcommands included."""
    action = subparsers(parser)
    below: list[ArgumentParser] = list((action.choices or {}).values()) if action else []
    return frozenset({other.dest for other in parser._actions} | {*parser._defaults}).union(*map(dests, below))


def belongs_to_manage(action: Action) -> bool:
    """Return True if `manage.py` itself consumes this option."""
    return not MANAGE_OPTIONS.keys().isdisjoint(action.option_strings)


def takes_several(action: Action) -> bool:
    """Return True if one use of this argument takes a list of values."""
    return action.nargs in SEVERAL or isinstance(action.nargs, int)


def opens_file(action: Action) -> bool:
    return isinstance(action.type, FileType)


def is_writable(action: Action) -> bool:
    """Return True if the argument has a value that can be written."""
    if opens_file(action) or (action.nargs == REMAINDER and action.option_strings):
        return False
    has_value = action.nargs != 0 or action.const is not None
    return has_value or isinstance(action, _CountAction | BooleanOptionalAction)


def _unknown_option(name: str, known: Sequence[str]) -> InvalidArguments:
    if variable := MANAGE_OPTIONS.get(f"--{name}"):
        hint = f"Set {variable} in the job's environment."
        return InvalidArguments(f"{name!r} is an option of manage.py, not of a job.", hint=hint)
    # A list of this command's options; those of every command would only hide them.
    own = sorted({*known} - dests(BaseCommand().create_parser("manage.py", "")))
    return InvalidArguments(f"Unknown option {name!r}.", hint=closest(name, known) or did_you_mean(name, own))


def _too_many(surplus: int, *, takes: int) -> InvalidArguments:
    if not takes:
        expected, hint = "no positional arguments", "Pass options by name."
    else:
        expected = f"at most {takes} positional argument{'s' * (takes > 1)}"
        hint = "Options are passed by name; a positional that takes several, but is not last, takes a list."
    return InvalidArguments(f"Expected {expected}, got {takes + surplus}.", hint=hint)
