"""Write arguments, and parse them again as the container will: a value that does not survive is rejected."""

from __future__ import annotations

from argparse import Action, ArgumentParser
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from cloudrun_jobs.argv.binding import Level, bind
from cloudrun_jobs.argv.parsing import parse, parse_texts
from cloudrun_jobs.argv.values import check_arrival, check_place
from cloudrun_jobs.argv.writing import write


def serialise(
    parser: ArgumentParser,
    args: Sequence[Any],
    options: Mapping[str, Any],
    inspect: Callable[[Mapping[str, Any]], object] = lambda parsed: None,
) -> list[str]:
    """Return the arguments that `parser` parses to these values. Raises `InvalidArguments`.

    `args` fill the positionals in order; the last one takes all that are left if it takes several. `options` are
    named by `dest`, or as on the command line. `inspect` is called with the options as the container will parse
    them, before `parser` parses anything else.
    """
    levels = bind(parser, args, options)
    argv = write(levels)
    given = [(level.actions(dest)[0], value) for level in levels for dest, value in level.values.items()]
    parsed = parse(parser, argv)
    for action, value in given:
        check_arrival(action, value, parsed.get(action.dest))
    inspect(parsed)
    _check_places(levels, argv, given)
    return argv


def _check_places(levels: Sequence[Level], argv: Sequence[str], given: Sequence[tuple[Action, Any]]) -> None:
    """Raise `InvalidArguments` if a value is parsed as the value of another argument."""
    # A custom Action may parse a string to anything, and may fail for one that no type has converted.
    if all(type(action).__module__ == "argparse" for action, _ in given):
        places = parse_texts([level.parser for level in levels], argv)
        for action, value in given:
            check_place(action, value, places.get(action.dest))
