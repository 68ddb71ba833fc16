"""Parse arguments with the command's parser."""

from __future__ import annotations

import copy
from argparse import ArgumentParser
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

from django.core.management.base import CommandError, CommandParser

from cloudrun_jobs.argv.redaction import is_secret
from cloudrun_jobs.exceptions import InvalidArguments


class Parsable(Protocol):
    """A command that has a parser."""

    @property
    def command_name(self) -> str: ...

    def create_parser(self, prog_name: str, subcommand: str, **kwargs: Any) -> CommandParser: ...


def parser_of(command: Parsable) -> CommandParser:
    """Return the command's parser, which raises errors even if `manage.py` runs this command."""
    caller = copy.copy(command)
    vars(caller)["_called_from_command_line"] = False  # BaseCommand's own attribute.
    return caller.create_parser("manage.py", command.command_name)


def parse(parser: ArgumentParser, argv: Sequence[str]) -> dict[str, Any]:
    """Return the parsed options. Raises nothing but `InvalidArguments`."""
    try:
        return vars(parser.parse_args(argv))
    except InvalidArguments:
        raise
    except CommandError as error:
        raise InvalidArguments(str(error).removeprefix("Error: ")) from None
    except SystemExit:
        raise InvalidArguments("The command's parser ended the process while it read its arguments.") from None
    except Exception as error:
        # A custom type= or Action may raise anything, and would do so in the container as well.
        message = f"The command's parser raised {type(error).__name__}"
        if any(map(is_secret, parser._actions)):
            raise InvalidArguments(f"{message}.") from None  # The error may repeat the value.
        raise InvalidArguments(f"{message}: {error}") from error


def parse_texts(parsers: Sequence[ArgumentParser], argv: Sequence[str]) -> dict[str, Any]:
    """Return the text of each option, before its `type` is applied.

    The first of `parsers` is the command's, the others are those of the subcommands in use.
    """
    with _without_types(parsers):
        return parse(parsers[0], argv)


@contextmanager
def _without_types(parsers: Sequence[ArgumentParser]) -> Iterator[None]:
    # argparse applies types and checks choices in two methods, looked up on the parser.
    overrides = {"_get_value": lambda action, text: text, "_check_value": lambda action, value: None}
    for parser in parsers:
        vars(parser).update(overrides)
    try:
        yield
    finally:
        for parser in parsers:
            for name in overrides:
                del vars(parser)[name]
