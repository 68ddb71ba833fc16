"""Options to container arguments and back, by way of the command's own parser.

What `delay()` is given is written as arguments, these are parsed, and what comes out must be what went in: a
value that does not survive is refused. Only such forms are written in which a value cannot become an option of
`manage.py`, whose own parser reads every argument first: `--option=value`, then `--`, then the positionals.
"""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Mapping, Sequence
from reprlib import repr as shortened
from typing import Any

from django.core.management.base import CommandError

from ..exceptions import InvalidArguments
from .binding import Level, bind
from .limits import check_limits
from .values import arrives_as
from .writing import write

__all__ = ["check_limits", "parse", "serialise"]


def serialise(parser: ArgumentParser, args: Sequence[Any], options: Mapping[str, Any]) -> list[str]:
    """Return the arguments that `parser` turns into just these values.

    `args` fill the positionals in their order, as in a call of a Python function; the last one takes all that
    are left if it takes several. `options` are named by `dest`, or as on the command line.
    """
    levels = bind(parser, args, options)
    argv = write(levels)
    parsed = parse(parser, argv)
    for level in levels:
        _compare(level, parsed)
    return argv


def parse(parser: ArgumentParser, argv: Sequence[str]) -> dict[str, Any]:
    """Return the options that `parser` makes of the arguments; never leave by `SystemExit`."""
    try:
        return vars(parser.parse_args(argv))
    except CommandError as error:
        raise InvalidArguments(str(error).removeprefix("Error: ")) from None
    except SystemExit:
        raise InvalidArguments("The command's parser ended the process while it read its arguments.") from None


def _compare(level: Level, parsed: Mapping[str, Any]) -> None:
    for dest, given in level.values.items():
        arrived = parsed.get(dest)
        if not arrives_as(given, arrived):
            hint = "Leave it out, or pass None."
            if arrived is not None:
                hint = "Pass a value that the option's type= makes of its own text."
            raise InvalidArguments(f"{dest}: {shortened(given)} would arrive as {shortened(arrived)}.", hint=hint)
