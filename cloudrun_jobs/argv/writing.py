"""Write bound values as arguments, in forms that no other parser can misread."""

from __future__ import annotations

import re
from argparse import (
    OPTIONAL,
    PARSER,
    REMAINDER,
    SUPPRESS,
    Action,
    ArgumentParser,
    BooleanOptionalAction,
    _AppendAction,
    _AppendConstAction,
    _CountAction,
    _ExtendAction,
)
from collections.abc import Sequence
from itertools import chain
from typing import Any, NamedTuple

from cloudrun_jobs.argv.binding import SEVERAL, Level, opens_file, takes_several
from cloudrun_jobs.argv.redaction import shown
from cloudrun_jobs.argv.values import text_of
from cloudrun_jobs.exceptions import InvalidArguments

# One use of an option: "--day=2026-01-02", "--force", or an option and its list as separate arguments.
Use = list[str]


class Option(NamedTuple):
    """All uses of the options of one dest."""

    dest: str
    tokens: list[str]
    is_open: bool  # argparse would read the next arguments as more values.


def write(levels: Sequence[Level]) -> list[str]:
    """Return the arguments for all levels, each level's options before its positionals."""
    argv = list(chain.from_iterable(_write_level(level) for level in levels))
    # The command's parser reads the arguments of its subcommands as well.
    prefixes = "".join(level.parser.fromfile_prefix_chars or "" for level in levels)
    if from_file := [argument for argument in argv if argument[:1] and argument[0] in prefixes]:
        what = f"an argument that begins with {from_file[0][0]!r}"
        raise InvalidArguments(f"The command's parser would read {what} as a file of arguments.")
    return argv


def _write_level(level: Level) -> list[str]:
    tokens = [*_write_options(level), *_write_positionals(level)]
    if level.subcommand is None:
        return tokens
    if level.subcommand.startswith(tuple(level.parser.prefix_chars)):
        raise InvalidArguments(f"The subcommand {level.subcommand!r} would be read as an option.")
    return [*tokens, level.subcommand]


def _write_options(level: Level) -> list[str]:
    positional = {action.dest for action in level.positionals()}
    options = [
        _write_option(level.parser, level.actions(dest), value)
        for dest, value in level.values.items()
        if dest not in positional
    ]
    # An open list would swallow a subcommand; an option after the list ends it.
    options.sort(key=lambda option: option.is_open, reverse=True)
    if options and options[-1].is_open and level.subcommand is not None:
        message = f"{options[-1].dest}: would read the subcommand {level.subcommand!r} as one of its values."
        raise InvalidArguments(message, hint="Declare the option with action='append'.")
    return list(chain.from_iterable(option.tokens for option in options))


def _write_option(parser: ArgumentParser, actions: list[Action], value: Any) -> Option:
    default = parser.get_default(actions[0].dest)
    default = None if default == SUPPRESS else default
    uses = [] if value is None and default is None else _uses(parser, actions, value, default)
    is_open = bool(uses) and _is_open(uses[-1], actions)
    return Option(actions[0].dest, list(chain.from_iterable(uses)), is_open)


def _is_open(use: Use, actions: list[Action]) -> bool:
    if len(use) == 1 and "=" in use[0]:
        return False
    return any(_name(action) == use[0] and action.nargs in (OPTIONAL, *SEVERAL) for action in actions)


def _uses(parser: ArgumentParser, actions: list[Action], value: Any, default: Any) -> list[Use]:
    if any(opens_file(action) for action in actions):
        hint = "Declare type=pathlib.Path and open the file in run(): the container has other files."
        raise InvalidArguments(f"{actions[0].dest}: argparse.FileType opens the file here.", hint=hint)
    if isinstance(actions[0], _AppendAction | _AppendConstAction):
        return _write_list(parser, actions, value, default)
    if isinstance(actions[0], _CountAction):
        return _write_count(actions[0], value, default)
    return _write_one(parser, actions, value, default)


def _write_one(parser: ArgumentParser, actions: list[Action], value: Any, default: Any) -> list[Use]:
    for action in actions:
        if flag := _flag(action, value):
            return [[flag]]
    if valued := [action for action in actions if action.nargs != 0 and value is not None]:
        return [_use(parser, valued[0], value)]
    if _equals(value, default):
        return []
    expected = sorted(
        {shown(action, action.const) for action in actions if action.const is not None}
        | {shown(actions[0], default)}
    )
    message = f"{actions[0].dest}: expected {' or '.join(expected)}, got {shown(actions[0], value)}."
    raise InvalidArguments(message, hint="Leave it out to get the default.")


def _flag(action: Action, value: Any) -> str | None:
    """Return the option that has this value without an argument."""
    if isinstance(action, BooleanOptionalAction):
        negative = [option for option in action.option_strings if option.startswith("--no-")]
        positive = [option for option in action.option_strings if option not in negative]
        return next(iter({True: positive, False: negative}[value]), None) if isinstance(value, bool) else None
    alone = action.nargs == 0 or action.nargs == OPTIONAL
    return _name(action) if alone and action.const is not None and _equals(value, action.const) else None


def _equals(value: Any, other: Any) -> bool:
    """Return True if the values are equal, and not 1 and True."""
    return isinstance(value, bool) == isinstance(other, bool) and bool(value == other)


def _use(parser: ArgumentParser, action: Action, value: Any) -> Use:
    if not takes_several(action):
        return [f"{_name(action)}={text_of(value, action)}"]
    texts = _texts(action, value)
    if action.nargs == REMAINDER:
        raise InvalidArguments(f"{action.dest}: an option with nargs=REMAINDER has no end.")
    if len(texts) == 1:
        return [f"{_name(action)}={texts[0]}"]
    _reject_leading_dashes(parser, action, texts)
    return [_name(action), *texts]


def _write_list(parser: ArgumentParser, actions: list[Action], value: Any, default: Any) -> list[Use]:
    if not isinstance(value, list | tuple):
        raise _not_a_list(actions[0], value)
    start = list(default) if isinstance(default, list | tuple) else []
    if list(value[: len(start)]) != start:
        hint = "argparse adds to the default: begin with it, or declare default=None."
        message = f"{actions[0].dest}: expected a list that begins with {shown(actions[0], start)}."
        raise InvalidArguments(message, hint=hint)
    rest = list(value[len(start) :])
    if isinstance(actions[0], _ExtendAction):
        return _write_extension(parser, actions[0], rest, required=not start)
    return [_write_element(parser, actions, element) for element in rest]


def _write_extension(parser: ArgumentParser, action: Action, items: list[Any], *, required: bool) -> list[Use]:
    """Repeat the option for each value, so that a value may begin with a dash."""
    if not items:
        return [[_name(action)]] if required else []
    size = action.nargs if isinstance(action.nargs, int) else 1
    return [_use(parser, action, items[start : start + size]) for start in range(0, len(items), size)]


def _write_element(parser: ArgumentParser, actions: list[Action], element: Any) -> Use:
    for action in actions:
        if isinstance(action, _AppendConstAction) and _equals(element, action.const):
            return [_name(action)]
    valued = [action for action in actions if not isinstance(action, _AppendConstAction)]
    if not valued:
        known = ", ".join(dict.fromkeys(shown(action, action.const) for action in actions))
        raise InvalidArguments(f"{actions[0].dest}: expected {known}, got {shown(actions[0], element)}.")
    return _use(parser, valued[0], element)


def _write_count(action: Action, value: Any, default: Any) -> list[Use]:
    least = default if isinstance(default, int) else 0
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        message = f"{action.dest}: expected a count from {shown(action, least)} up, got {shown(action, value)}."
        raise InvalidArguments(message)
    # The limit is 1000 arguments: do not build millions only to reject them.
    return [[_name(action)]] * min(value - least, 10_000)


def _write_positionals(level: Level) -> list[str]:
    actions = [action for action in level.positionals() if level.values.get(action.dest) is not None]
    texts = [(action, text) for action in actions for text in _positional_texts(action, level.values[action.dest])]
    # argparse passes `--` to a subcommand and to a REMAINDER as an argument.
    bare = level.subcommand is not None or any(action.nargs in (REMAINDER, PARSER) for action in actions)
    if bare:
        for action, text in texts:
            _reject_leading_dashes(level.parser, action, [text])
    return [*(["--"] if texts and not bare else []), *(text for _, text in texts)]


def _positional_texts(action: Action, value: Any) -> list[str]:
    if opens_file(action):
        raise InvalidArguments(f"{action.dest}: argparse.FileType opens the file here.")
    return _texts(action, value) if takes_several(action) else [text_of(value, action)]


def _texts(action: Action, value: Any) -> list[str]:
    if not isinstance(value, list | tuple):
        raise _not_a_list(action, value)
    return [text_of(item, action) for item in value]


def _not_a_list(action: Action, value: Any) -> InvalidArguments:
    message = f"{action.dest}: expected a list or a tuple, got {type(value).__name__} {shown(action, value)}."
    return InvalidArguments(message, hint="Pass [value] for one value, list(values) for several.")


def _reject_leading_dashes(parser: ArgumentParser, action: Action, texts: list[str]) -> None:
    for text in texts:
        if text[:1] and text[0] in parser.prefix_chars and not re.fullmatch(r"-\d+|-\d*\.\d+", text):
            message = (
                f"{action.dest}: {shown(action, text)} begins with {text[0]!r} and would be read as an option."
            )
            raise InvalidArguments(message, hint="Declare the option with action='append', which takes any value.")


def _name(action: Action) -> str:
    """Return the option's first long name."""
    return next((option for option in action.option_strings if len(option) > 2), action.option_strings[0])
