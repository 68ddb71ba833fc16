"""Hide the values of secret options. The one owner of how they are shown."""

from __future__ import annotations

from argparse import Action
from collections.abc import Collection, Iterable, Sequence
from reprlib import repr as shortened

HIDDEN = "[secret]"

MARK = "cloudrun_jobs secret"  # An attribute of argparse's actions: no attribute of a user's class has a space.


def mark(actions: Iterable[Action], names: Collection[str]) -> None:
    """Mark the arguments of these names as secret."""
    for action in actions:
        if action.dest in names:
            vars(action)[MARK] = True


def is_secret(action: Action) -> bool:
    return MARK in vars(action)


def shown(action: Action, value: object) -> str:
    """Return the value of an argument for a message."""
    return HIDDEN if is_secret(action) else shortened(value)


def redact(arguments: Sequence[str], texts: Collection[str]) -> list[str]:
    """Return the arguments without these texts, in whatever form they are given: `--key=x`, `--key x`, `-kx`."""
    return [_redact(argument, texts) for argument in arguments]


def _redact(argument: str, texts: Collection[str]) -> str:
    name, equals, value = argument.partition("=")
    if argument in texts:
        return HIDDEN
    if equals and value in texts:
        return f"{name}={HIDDEN}"
    if argument.startswith("--") or not argument.startswith("-"):
        return argument
    attached = max((text for text in texts if argument.endswith(text)), key=len, default="")
    return argument.removesuffix(attached) + HIDDEN if attached else argument


def redact_message(message: str, redacted: Sequence[str], arguments: Sequence[str]) -> str:
    """Return the message without the texts in which `arguments` differ from `redacted`."""
    pairs = [(one, other) for one, other in zip(redacted, arguments, strict=True) if one != other]
    texts = {argument.removeprefix(hidden.removesuffix(HIDDEN)) for hidden, argument in pairs}
    for text in sorted(filter(None, texts), key=len, reverse=True):
        message = message.replace(text, HIDDEN)
    return message
