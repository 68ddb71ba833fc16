"""The form that starts a job: a field for each argument of the command's parser."""

from __future__ import annotations

from argparse import (
    SUPPRESS,
    Action,
    ArgumentParser,
    _AppendAction,
    _AppendConstAction,
    _get_action_name,
    _SubParsersAction,
)
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from django import forms
from django.utils.translation import gettext

from cloudrun_jobs import argv
from cloudrun_jobs.argv.binding import is_writable, own_arguments, subparser, subparsers
from cloudrun_jobs.dashboard.start.fields import Input, inputs, is_flag
from cloudrun_jobs.exceptions import InvalidArguments
from cloudrun_jobs.http.options import is_required

if TYPE_CHECKING:
    from django.forms import BoundField
    from django.http import QueryDict

    from cloudrun_jobs.command import CloudRunJobs

PREFIX = "option-"
DRY_RUN = "dry_run"


@dataclass(frozen=True, slots=True)
class Section:
    """A group of fields. The fields outside of any group have no legend."""

    legend: str
    text: str
    fields: list[BoundField] = field(default_factory=list)
    #: The groups of arguments that exclude each other.
    sections: list[Section] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Subcommand:
    """A subcommand that may be chosen, with those before it."""

    names: list[str]
    help: str


class StartForm(forms.Form):
    """The arguments of a job, and of the chosen subcommands.

    A field that is left as it is sends nothing, so the parser's defaults apply. Raises `InvalidJob`,
    `InvalidArguments` for an unknown subcommand, and what the command raises when it builds its parser.
    """

    def __init__(self, job: CloudRunJobs, subcommands: Sequence[str] = (), data: QueryDict | None = None) -> None:
        super().__init__(data)
        self.job, self.subcommands = job, [*subcommands]
        self._secret_options = job.spec.secret_options
        self.parser = argv.parser_of(job)
        self._parsers: list[ArgumentParser] = [self.parser]
        for name in subcommands:
            self._parsers.append(subparser(self._parsers[-1], name))
        self._inputs: dict[str, Input] = {}
        #: The required arguments that the form cannot have.
        self.missing: list[str] = []
        for parser in self._parsers:
            self._add_arguments(parser)
        self.fields.update({name: each.field for name, each in self._inputs.items()})

    def _add_arguments(self, parser: ArgumentParser) -> None:
        # An option of the same dest below wins.
        below = self._parsers[self._parsers.index(parser) + 1 :]
        replaced = {action.dest for each in below for action in own_arguments(each)}
        for action in own_arguments(parser):
            if action.dest not in replaced and _is_shown(action, self._secret_options):
                for each in inputs(parser, action):
                    self._inputs[self._free_name(action, each.suffix)] = each
            elif is_required(action):
                self.missing.append(_get_action_name(action) or action.dest)

    def _free_name(self, action: Action, suffix: str) -> str:
        """Return the name of a field: it may have no space, which separates ids in `aria-describedby`."""
        name = f"{PREFIX}{quote(action.dest, safe='')}{suffix}"
        number = 0
        while (free := f"{name}:{number}" if number else name) in self._inputs:
            number += 1
        return free

    @property
    def next_subcommands(self) -> list[Subcommand]:
        """The subcommands that may follow the chosen ones."""
        action = subparsers(self._parsers[-1])
        helps = {each.dest: each.help for each in action._choices_actions} if action else {}
        return [Subcommand([*self.subcommands, name], str(helps.get(name) or "")) for name in _names(action)]

    @property
    def needs_subcommand(self) -> bool:
        """True if the parser rejects arguments without another subcommand."""
        action = subparsers(self._parsers[-1])
        return action is not None and action.required

    @property
    def dry_run(self) -> BoundField | None:
        """The field that makes the job do nothing."""
        found = (
            name for name, each in self._inputs.items() if each.action.dest == DRY_RUN and is_flag(each.action)
        )
        return next((self[name] for name in found), None)

    @property
    def invalid_fields(self) -> list[BoundField]:
        return [field for field in self if field.errors]

    @property
    def sections(self) -> list[Section]:
        """The fields, in the groups of the parsers."""
        return [
            section
            for parser in self._parsers
            for section in self._sections(parser)
            if section.fields or section.sections
        ]

    def _sections(self, parser: ArgumentParser) -> Iterator[Section]:
        own = [parser._positionals, parser._optionals]  # Their titles say nothing of the job.
        exclusive = {
            id(action): group for group in parser._mutually_exclusive_groups for action in group._group_actions
        }
        seen = set[int]()
        for group in parser._action_groups:
            is_own = any(group is each for each in own)
            section = Section("" if is_own else str(group.title or ""), str(group.description or ""))
            for action in group._group_actions:
                if (excluding := exclusive.get(id(action))) is None:
                    section.fields.extend(self._bound([action]))
                elif id(excluding) not in seen:
                    seen.add(id(excluding))
                    if fields := self._bound(excluding._group_actions):
                        section.sections.append(Section(_rule(excluding.required), "", fields))
            yield section

    def _bound(self, actions: Iterable[Action]) -> list[BoundField]:
        dry_run = self.dry_run
        return [
            self[name]
            for action in actions
            for name, each in self._inputs.items()
            if each.action is action and (dry_run is None or name != dry_run.name)
        ]

    def clean(self) -> dict[str, Any]:
        """Refuse values of arguments that the form does not have, as of a command that has changed."""
        if any(name.startswith(PREFIX) and name not in self.fields for name in self.data):
            self.add_error(
                None, gettext("The options of this job have changed. Check the values, and start it again.")
            )
        return self.cleaned_data

    def call(self) -> tuple[list[Any], dict[str, Any]]:
        """Return the arguments of a valid form as those of `delay()`. Raises `InvalidArguments`."""
        args, options = list[Any](), self._options()
        for parser, name in zip(self._parsers, self.subcommands, strict=False):
            action = subparsers(parser)
            if action is not None and action.dest != SUPPRESS:
                options[action.dest] = name
            else:  # A subcommand without a dest can only be passed by position, behind the positionals.
                positionals = [each.dest for each in own_arguments(parser) if not each.option_strings]
                args += [*(options.pop(dest) for dest in positionals if dest in options), name]
        return args, options

    def _options(self) -> dict[str, Any]:
        options: dict[str, Any] = {}
        for name, each in self._inputs.items():
            cleaned, dest = self.cleaned_data[name], each.action.dest
            if cleaned is None or cleaned is False or cleaned in ("", []):
                continue  # Not set. A count may be 0, which equals False.
            value = each.read(cleaned)
            if dest not in options:
                options[dest] = [*self._default_items(each.action), *value] if isinstance(value, list) else value
            elif isinstance(value, list) and isinstance(options[dest], list):
                options[dest] += value
            else:
                argument = _get_action_name(each.action)
                raise InvalidArguments(f"argument {argument}: not allowed with another argument for {dest!r}.")
        return options

    def _default_items(self, action: Action) -> Sequence[Any]:
        """Return what argparse appends the values to."""
        parser = next(parser for parser in self._parsers if action in parser._actions)
        default = parser.get_default(action.dest)
        appends = isinstance(action, _AppendAction | _AppendConstAction)
        return default if appends and isinstance(default, list | tuple) else []

    def report(self, error: InvalidArguments) -> None:
        """Show the error at the field of the argument that it names, or above the form."""
        message = error.args[0].removeprefix(f"{self.job.command_name}: ")
        text = str(InvalidArguments(message, hint=error.hint))
        for name, each in self._inputs.items():
            starts = (f"argument {_get_action_name(each.action)}: ", f"{each.action.dest}: ")
            if start := next(filter(message.startswith, starts), None):
                return self.add_error(name, text.removeprefix(start))
        return self.add_error(None, text)


def _names(action: _SubParsersAction[ArgumentParser] | None) -> list[str]:
    """Return the names of the subcommands, without aliases, which are other names of the same parser."""
    choices: Mapping[str, ArgumentParser] = action.choices if action else {}
    return [*{id(parser): name for name, parser in reversed([*choices.items()])}.values()][::-1]


def _is_shown(action: Action, secret_options: Collection[str]) -> bool:
    return action.help != SUPPRESS and action.dest not in secret_options and is_writable(action)


def _rule(required: bool) -> str:
    return gettext("Set exactly one of these.") if required else gettext("Set at most one of these.")
