"""Turn the arguments of a command's parser into fields of a form, and their values into options of `delay()`."""

from __future__ import annotations

import json
from argparse import (
    OPTIONAL,
    SUPPRESS,
    Action,
    ArgumentParser,
    BooleanOptionalAction,
    _AppendAction,
    _AppendConstAction,
    _CountAction,
    _ExtendAction,
)
from collections.abc import Callable, Iterator, Sized
from dataclasses import dataclass
from enum import Enum
from typing import Any

from django import forms
from django.utils.functional import Promise
from django.utils.text import capfirst
from django.utils.translation import gettext, pgettext

from cloudrun_jobs.argv.binding import takes_several
from cloudrun_jobs.argv.values import PLAIN, text_of
from cloudrun_jobs.exceptions import InvalidArguments
from cloudrun_jobs.http.options import FORMATS, MAX_CHOICES, NUMBERS, is_required, of_type
from cloudrun_jobs.terminal import escape

MAX_DEFAULT = 200  # characters
MAX_CHECKBOXES = 20  # of one argument
INPUT_TYPES = {"date": "date", "date-time": "datetime-local", "time": "time"}
# The texts of one line are in an input, which browsers neither complete nor correct.
VERBATIM = {"autocomplete": "off", "spellcheck": "false", "autocapitalize": "off"}


@dataclass(frozen=True, slots=True)
class Input:
    """A field of the form, and how its value becomes one of the argument."""

    action: Action
    field: forms.Field
    read: Callable[[Any], Any] = str
    #: Appended to the name of the field: an argument may have two.
    suffix: str = ""


def inputs(parser: ArgumentParser, action: Action) -> Iterator[Input]:
    """Yield the fields of one argument."""
    if isinstance(action, BooleanOptionalAction):
        choices = [("yes", pgettext("job", "Yes")), ("no", pgettext("job", "No"))]
        yield Input(action, _select(parser, action, choices), lambda text: text == "yes")
    elif isinstance(action, _CountAction):
        least = action.default if isinstance(action.default, int) else 0
        yield Input(action, forms.IntegerField(min_value=least, **_described(parser, action)), int)
    elif action.nargs == 0:
        yield Input(action, _checkbox(parser, action), lambda checked: _of_flag(action))
    elif action.type is bool and action.nargs is None and not isinstance(action, _AppendAction):
        yield Input(action, _checkbox(parser, action), bool)  # Every text but the empty one is True.
    elif _is_list(action):
        yield _list(parser, action)
    else:
        yield Input(action, _single(parser, action))
        if action.nargs == OPTIONAL and action.option_strings and action.const is not None:
            label = gettext("%(option)s without a value") % {"option": action.option_strings[-1]}
            field = forms.BooleanField(required=False, label=label)
            yield Input(action, field, lambda checked: action.const, ":alone")


def is_flag(action: Action) -> bool:
    """Return True for an argument without a value that sets True."""
    return action.nargs == 0 and action.const is True


def _of_flag(action: Action) -> Any:
    return [action.const] if isinstance(action, _AppendConstAction) else action.const


def _is_list(action: Action) -> bool:
    is_repeated = isinstance(action, _AppendAction) and bool(action.option_strings)
    return is_repeated or takes_several(action)


def _has_uses(action: Action) -> bool:
    """Return True if the argument is repeated, each time with several values."""
    return isinstance(action, _AppendAction) and not isinstance(action, _ExtendAction) and takes_several(action)


def _single(parser: ArgumentParser, action: Action) -> forms.Field:
    if choices := _choices(action):
        return _select(parser, action, choices)
    widget: forms.Widget = forms.TextInput(attrs=VERBATIM)
    hint = ""
    if action.type is json.loads:
        widget, hint = forms.Textarea(attrs={**VERBATIM, "rows": 4}), gettext("A JSON value.")
    elif of_type(NUMBERS, action):
        widget = forms.NumberInput(attrs={"step": "1" if action.type is int else "any"})
    elif kind := INPUT_TYPES.get(of_type(FORMATS, action) or ""):
        widget = forms.TextInput(attrs={} if kind == "date" else {"step": "1"})
        widget.input_type = kind
        hint = gettext("The job gets this time without a time zone.") if kind == "datetime-local" else ""
    return forms.CharField(strip=False, widget=widget, **_described(parser, action, hint))


def _list(parser: ArgumentParser, action: Action) -> Input:
    may_be_chosen = not isinstance(action.nargs, int) and not _has_uses(action)
    if may_be_chosen and (choices := _choices(action)):
        widget: Any = forms.CheckboxSelectMultiple if len(choices) <= MAX_CHECKBOXES else forms.SelectMultiple
        field: forms.Field = forms.MultipleChoiceField(
            choices=choices, widget=widget, **_described(parser, action)
        )
        return Input(action, field, list)
    hint = gettext("One value per line.")
    if _has_uses(action):
        hint = gettext("One value per line, and an empty line between the uses of the option.")
    textarea = forms.Textarea(attrs={**VERBATIM, "rows": 4})
    field = forms.CharField(strip=False, widget=textarea, **_described(parser, action, hint))
    return Input(action, field, _uses if _has_uses(action) else _lines)


def _select(parser: ArgumentParser, action: Action, choices: list[tuple[str, str]]) -> forms.ChoiceField:
    # A required select has an empty option as well: the first choice must not be taken by accident.
    empty = gettext("Choose a value") if is_required(action) else gettext("Default")
    return forms.ChoiceField(choices=[("", empty), *choices], **_described(parser, action))


def _checkbox(parser: ArgumentParser, action: Action) -> forms.BooleanField:
    return forms.BooleanField(**_described(parser, action))


def _choices(action: Action) -> list[tuple[str, str]]:
    """Return the choices of the argument, each with its text; none if there are too many, or one has no text."""
    if not isinstance(action.choices, Sized) or len(action.choices) > MAX_CHOICES:
        return []
    try:
        texts = dict.fromkeys(text_of(choice, action) for choice in action.choices)
    except InvalidArguments:
        return []
    return [(text, escape(text)) for text in texts if text]


def _lines(text: str) -> list[str]:
    return [line for line in _normalised(text).split("\n") if line]


def _uses(text: str) -> list[list[str]]:
    return [use for block in _normalised(text).split("\n\n") if (use := _lines(block))]


def _normalised(text: str) -> str:
    """Return the text with the line breaks of Python: browsers send \\r\\n."""
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _described(parser: ArgumentParser, action: Action, hint: str = "") -> dict[str, Any]:
    return {
        "required": is_required(action),
        "label": label_of(action),
        "help_text": "\n".join(filter(None, (_help(parser, action), hint, _default(parser, action)))),
    }


def label_of(action: Action) -> str:
    """Return the name of the argument in words: "Dry run" of `--dry-run`."""
    if action.option_strings:
        is_pair = isinstance(action, BooleanOptionalAction)
        names = [name for name in action.option_strings if not (is_pair and name.startswith("--no-"))]
        name = max(names, key=len).lstrip("-+/")
    else:
        name = action.metavar if isinstance(action.metavar, str) else action.dest
    return str(capfirst(" ".join(name.replace("-", " ").replace("_", " ").split())))


def _help(parser: ArgumentParser, action: Action) -> str:
    if not action.help:
        return ""
    try:
        return str(parser._get_formatter()._expand_help(action))
    except Exception:  # noqa: BLE001  (a stray "%", or the text of a default: the help is shown as it is)
        return str(action.help)


def _default(parser: ArgumentParser, action: Action) -> str:
    """Return the default as a sentence, unless the help text has it."""
    default = parser.get_default(action.dest)
    is_alone = action.nargs == 0 and not isinstance(action, BooleanOptionalAction | _CountAction)
    if is_alone or "%(default)" in str(action.help):
        return ""
    if isinstance(default, bool):
        return gettext("Default: yes.") if default else gettext("Default: no.")
    text = _default_text(action, default)
    if not text:
        return ""
    if isinstance(action, _AppendAction):
        return gettext("The values are added to the default: %(default)s.") % {"default": text}
    return gettext("Default: %(default)s.") % {"default": text}


def _default_text(action: Action, default: Any) -> str:
    items = default if isinstance(default, list | tuple) else [default]
    if not all(isinstance(item, (*PLAIN, Enum, Promise)) for item in items) or default == SUPPRESS:
        return ""
    try:
        text = ", ".join(text_of(item, action) for item in items)
    except InvalidArguments:
        return ""
    return text[:MAX_DEFAULT] + "…" * (len(text) > MAX_DEFAULT)
