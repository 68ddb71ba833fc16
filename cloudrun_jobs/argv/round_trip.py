"""Write arguments, and parse them again as the container will: a value that does not survive is rejected."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Mapping, Sequence
from typing import Any

from cloudrun_jobs.argv.binding import Level, bind
from cloudrun_jobs.argv.parsing import parse, parse_texts
from cloudrun_jobs.argv.values import check_arrival, check_place
from cloudrun_jobs.argv.writing import write


def serialise(parser: ArgumentParser, args: Sequence[Any], options: Mapping[str, Any]) -> list[str]:
    """Return the arguments that `parser` parses to these values. Raises `InvalidArguments`.

    `args` fill the positionals in order; the last one takes all that are left if it takes several. `options` are
    named by `dest`, or as on the command line.
    """
    levels = bind(parser, args, options)
    argv = write(levels)
    _check(levels, argv)
    return argv


def _check(levels: Sequence[Level], argv: Sequence[str]) -> None:
    """Parse the arguments as the container will, and compare."""
    parsed = parse(levels[0].parser, argv)
    given = [(level.actions(dest)[0], value) for level in levels for dest, value in level.values.items()]
    for action, value in given:
        check_arrival(action, value, parsed.get(action.dest))
    # A custom Action may parse a string to anything, and may fail for one that no type has converted.
    if all(type(action).__module__ == "argparse" for action, _ in given):
        places = parse_texts([level.parser for level in levels], argv)
        for action, value in given:
            check_place(action, value, places.get(action.dest))
