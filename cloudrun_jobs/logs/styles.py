"""Styles whose texts have a severity in place of a colour."""

from __future__ import annotations

import logging
import threading
from typing import Any

from django.core.management.color import Style

NOTICE = 25  # Between INFO and WARNING, as in Cloud Logging.
ROLE_SEVERITIES = {
    "SUCCESS": NOTICE,
    "NOTICE": NOTICE,
    "WARNING": logging.WARNING,
    "ERROR": logging.ERROR,
    "ERROR_OUTPUT": logging.ERROR,
}
MAX_HINTS = 64  # Styled texts that a thread has made, and not yet written.

_local = threading.local()


class StyledText(str):
    """A text with a severity, which its methods keep. In every other way, it is the plain text."""

    __slots__ = ("severity",)
    severity: int

    def __radd__(self, other: str) -> StyledText:
        return styled(str.__add__(other, self), self, other)

    def __mod__(self, values: Any) -> StyledText:
        return styled(str.__mod__(self, values), self, *(values if isinstance(values, tuple) else (values,)))

    def __rmod__(self, template: str) -> StyledText:
        return styled(str.__mod__(template, (self,)), self, template)

    def join(self, texts: Any) -> StyledText:
        texts = list(texts)
        return styled(str.join(self, texts), self, *texts)

    def __format__(self, spec: str) -> str:
        # An f-string returns a plain text, so `_hinted()` searches later texts for this one.
        _hint(text := format(str.__str__(self), spec), self.severity, is_part=True)
        return text

    def __str__(self) -> str:
        _hint(text := str.__str__(self), self.severity, is_part=True)
        return text

    def __reduce__(self) -> tuple[type[str], tuple[str]]:
        return str, ("".join(self),)


def _keep_style(name: str) -> None:
    method = getattr(str, name)

    def styled_method(self: StyledText, *args: Any, **options: Any) -> StyledText:
        return styled(method(self, *args, **options), self, *args, *options.values())

    setattr(StyledText, name, styled_method)


for _name in ("__add__", "__getitem__", "__mul__", "__rmul__", "center", "format", "ljust", "lower", "lstrip"):
    _keep_style(_name)
for _name in ("expandtabs", "replace", "rjust", "rstrip", "strip", "title", "upper", "zfill"):
    _keep_style(_name)


def styled(text: str, *parts: object) -> StyledText:
    """Return the text with the most severe of the parts' severities."""
    found = StyledText(text)
    found.severity = max(getattr(part, "severity", 0) for part in parts if isinstance(part, str))
    return found


def _hint(text: str, severity: int, *, is_part: bool) -> None:
    """Note a styled text. With `is_part`, it was formatted into another text; otherwise, it may be joined."""
    if stripped := text.strip():
        hints: list[tuple[str, int, bool]] | None = getattr(_local, "hints", None)
        if hints is None:
            hints = _local.hints = []
        hints.append((stripped, severity, is_part))
        del hints[:-MAX_HINTS]


def _hinted(text: str) -> int:
    """Return the severity of the styled texts that were formatted into this text, or are lines of it.

    Styled texts of other texts are kept until those are written.
    """
    hints, _local.hints = _local.hints, []
    severity, rest = 0, text
    lines = {*map(str.strip, text.splitlines())} if not all(is_part for *_, is_part in hints) else set()
    for part, level, is_part in hints:
        at = _find(rest, part) if is_part else -1
        if at >= 0:
            rest = f"{rest[:at]}\0{rest[at + len(part) :]}"
        elif is_part:
            _local.hints.append((part, level, is_part))
        if at >= 0 or part in lines:
            severity = max(severity, level)
    return severity


def _find(text: str, part: str) -> int:
    """Return the position of the part in the text, except within a longer word or number; -1 if there is none."""
    at = text.find(part)
    while at >= 0 and (_is_within(text[at - 1 : at], part[0]) or _is_within(part[-1], text[at + len(part) :][:1])):
        at = text.find(part, at + 1)
    return at


def _is_within(before: str, after: str) -> bool:
    both = before + after
    return len(both) == 2 and both.isascii() and (both.isdigit() or both.isalpha())


class Role:
    """A function of the style that returns texts with a severity, or plain texts if the severity is None."""

    def __init__(self, severity: int | None) -> None:
        self.severity = severity

    def __call__(self, text: object) -> str:
        if self.severity is None:
            return text if isinstance(text, str) else str(text)
        found = StyledText("".join(text) if isinstance(text, str) else str(text))
        found.severity = max(self.severity, getattr(text, "severity", 0))
        _hint(str.__str__(found), found.severity, is_part=False)
        return found


def entry_style(style: Style) -> Style:
    """Return a copy of the style whose roles set a severity instead of a colour."""
    found = Style()
    for name, value in vars(style).items():
        setattr(found, name, Role(ROLE_SEVERITIES.get(name)) if name.isupper() else value)
    return found


def severity_of(text: str) -> int:
    """Return the severity of the styles in a text that is about to be written; 0 if it has none."""
    severity = text.severity if isinstance(text, StyledText) else 0
    return max(severity, _hinted(text)) if getattr(_local, "hints", None) else severity


def forget() -> None:
    """Forget the styled texts that this thread has made and not written."""
    _local.hints = []
