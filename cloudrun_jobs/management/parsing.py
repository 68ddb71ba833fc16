"""Parse the command line of `manage.py cloudrun_jobs`, and report a mistake in one line."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any, NoReturn

from django.core.management.base import CommandError, CommandParser

from cloudrun_jobs.management.exits import ERROR
from cloudrun_jobs.suggestions import closest, did_you_mean
from cloudrun_jobs.terminal import escape

# Options that Django reads wherever they are on the command line.
DJANGO_OPTIONS = ("--settings", "--pythonpath")
DJANGO_FLAGS = ("--no-color", "--force-color", "--traceback")


MIN_SIMILARITY = 0.8  # of an unknown option and one of `run`, to suggest the latter


class Parser(CommandParser):
    """A parser of the command or of a subcommand. An error never contains a value, which may be a job's secret."""

    def error(self, message: str) -> NoReturn:
        """Exit with status 2 and one line; without a command line, raise `CommandError`."""
        if self.called_from_command_line:
            self.exit(ERROR, f"{self.prog}: error: {escape(message)}\n")
        raise CommandError(message, returncode=ERROR)

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse the arguments before `--`; the arguments after it belong to the job."""
        given = list(args or ())
        own = given[: given.index("--")] if "--" in given else given
        options, unknown = self.parse_known_args(own, namespace)
        if unknown:
            options.subparser.error(_unknown(options.subparser, unknown))
        options.job_arguments = given[len(own) + 1 :]
        if options.job_arguments and not takes_job_arguments(options.subparser):
            self.error("expected no arguments after --: only the subcommand `run` takes them")
        return options

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is None or value in action.choices:
            return
        names = [str(choice) for choice in action.choices]
        if isinstance(action, argparse._SubParsersAction):
            message = f"there is no subcommand {value!r:.100}. {did_you_mean(value, names)}"
            raise argparse.ArgumentError(None, message)
        raise argparse.ArgumentError(action, f"unknown value {value!r:.100}. {did_you_mean(str(value), names)}")


def add_django_options(parser: argparse.ArgumentParser) -> None:
    """Accept Django's own options after the subcommand too, as other commands do."""
    taken = {name for action in parser._actions for name in action.option_strings}
    for name in (*DJANGO_OPTIONS, *DJANGO_FLAGS):
        if name not in taken:
            action = "store" if name in DJANGO_OPTIONS else "store_true"
            parser.add_argument(name, action=action, default=argparse.SUPPRESS, help=argparse.SUPPRESS)
    parser.add_argument(
        "-v", "--verbosity", type=int, choices=range(4), default=argparse.SUPPRESS, help=argparse.SUPPRESS
    )


def takes_job_arguments(parser: argparse.ArgumentParser) -> bool:
    return bool(parser.get_default("takes_job_arguments"))


def _unknown(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> str:
    """Return the error for unknown arguments, without their values."""
    from difflib import get_close_matches  # As in `suggestions`.

    known = [name for action in parser._actions for name in action.option_strings if name.startswith("--")]
    options = [_name(argument) for argument in arguments if argument.startswith("-") and argument != "-"]
    hint = closest(options[0], known) if options else ""
    if takes_job_arguments(parser):
        # Most likely it is an option of the job.
        hint = hint if get_close_matches(options[0] if options else "", known, cutoff=MIN_SIMILARITY) else ""
        hint = f"{hint} Write the job's own arguments after `--`: `run JOB -- ARGUMENTS`.".strip()
    if options:
        return f"unknown option {options[0]}. {hint or '--help lists the options.'}"
    return f"unexpected argument. {hint or '--help shows the usage.'}"


def _name(argument: str) -> str:
    """Return the name of an option without its value: "--token=V", or "-tV"."""
    return argument.partition("=")[0] if argument.startswith("--") else argument[:2]
