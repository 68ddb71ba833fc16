"""Redact the values of secret options in arguments, and in every text that this process writes."""

from __future__ import annotations

import re
import threading
from argparse import Action
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from functools import partial
from reprlib import repr as shortened
from typing import Any

HIDDEN = "[secret]"  # In place of an argument.
MASK = "***"  # In place of a value inside a text.

MIN_SECRET_LENGTH = 6  # characters: shorter values would be masked inside ordinary words.
MAX_PATTERN_LENGTH = 4096  # characters of a value for whose every form a regular expression is compiled.

MARK = "cloudrun_jobs secret"  # An attribute of argparse actions; the space prevents collisions.


def mark(actions: Iterable[Action], names: Collection[str]) -> None:
    """Mark the arguments of these names as secret."""
    for action in actions:
        if action.dest in names:
            vars(action)[MARK] = True


def is_secret(action: Action) -> bool:
    return MARK in vars(action)


def shown(action: Action, value: object) -> str:
    """Return the value for a message: shortened, or redacted if the argument is secret."""
    return HIDDEN if is_secret(action) else shortened(value)


def redact(arguments: Sequence[str], texts: Collection[str]) -> list[str]:
    """Return the arguments with these texts redacted, in each form: `--key=x`, `--key x`, `-kx`.

    Arguments that contain a protected value are redacted as well.
    """
    redacted = [_redact(argument, texts) for argument in arguments]
    return [
        _redact(argument, {argument.partition("=")[2] or argument}) if mask(argument) != argument else argument
        for argument in redacted
    ]


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


def is_redacted(argument: str) -> bool:
    """Return True if a value in the argument is redacted."""
    return argument.endswith(HIDDEN)


# The number of times that each value is protected: several threads may run jobs with the same value.
_protected: Counter[str] = Counter()
_lock = threading.Lock()
_mask: Callable[[str], str] | None = None


def protect(values: Iterable[str]) -> None:
    """Make `mask()` replace these values in this process, until `release()` is called as often.

    The lines of a value are protected as well: output is often written line by line. Texts shorter than
    `MIN_SECRET_LENGTH` are ignored.
    """
    _update(values, 1)


def release(values: Iterable[str]) -> None:
    """Undo one call of `protect()` with these values."""
    _update(values, -1)


def is_protecting() -> bool:
    """Return True if any value is protected."""
    return _mask is not None


def mask(text: str) -> str:
    """Return the text with `***` in place of each protected value.

    It recognises the escaped forms of Python, JSON, URLs, HTML and shells, also inside of each other; of values
    over `MAX_PATTERN_LENGTH`, those of Python, JSON, URLs and HTML, and lines that have nothing else.
    """
    return text if _mask is None else _mask(text)


def masked(value: Any) -> Any:
    """Return a copy of a JSON value with its texts, keys and numbers masked."""
    if _mask is None or value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return mask(value)
    if isinstance(value, list):
        return [masked(item) for item in value]
    if isinstance(value, dict):
        return {mask(key): masked(item) for key, item in value.items()}
    return value if mask(text := str(value)) == text else MASK


def _update(values: Iterable[str], change: int) -> None:
    global _mask  # Every line of output reads it, without the lock.
    with _lock:
        for value in values:
            _protected[value] += change
            if _protected[value] <= 0:
                del _protected[value]
        _mask = _mask_of(_protected)


def _mask_of(values: Iterable[str]) -> Callable[[str], str] | None:
    """Return a function that masks the values; None if there is nothing to mask."""
    short, forms, lines = set[str](), set[str](), set[str]()
    for value in values:
        parts = {text for text in map(str.strip, [value, *value.splitlines()]) if len(text) >= MIN_SECRET_LENGTH}
        if len(value) <= MAX_PATTERN_LENGTH:
            short |= parts | ({value} if len(value) >= MIN_SECRET_LENGTH else set())
        else:
            lines |= parts
            forms |= {form for text in (value, value.strip()) for form in _forms(text)}
    if not short and not forms:
        return None
    expression = "|".join(map(_escapable, sorted(short, key=len, reverse=True)))
    replace = partial(re.compile(expression, re.DOTALL).sub, MASK) if short else str
    return partial(_mask_long, replace, sorted(forms, key=len, reverse=True), lines) if forms else replace


def _mask_long(replace: Callable[[str], str], forms: Collection[str], lines: Collection[str], text: str) -> str:
    for form in forms:
        text = text.replace(form, MASK)
    for line in map(str.strip, text.splitlines()):
        if line in lines:
            text = text.replace(line, MASK)
    return replace(text)


def _forms(text: str) -> Iterator[str]:
    """Yield the usual forms of a value that is too long for a regular expression."""
    import html
    import json
    from urllib.parse import quote, quote_plus

    def encode(value: str) -> str:
        return json.dumps(value, ensure_ascii=False)

    escaped = (text, html.escape(text), *(function(text)[1:-1] for function in (repr, ascii, encode, json.dumps)))
    quoted = (function(text, errors="replace") for function in (quote, partial(quote, safe=""), quote_plus))
    for form in (*escaped, *quoted):
        yield from (form, encode(form)[1:-1])


BACKSLASH = r"(?:\\|%(?:25)*5[Cc])"
PERCENT = "%(?:25)*"
NAMED_ESCAPES = {"\n": "n", "\t": "t", "\r": "r", "\f": "f", "\b": "b", "\a": "a", "\v": "v", "\0": "0"}
NAMED_ENTITIES = {"&": "amp", "<": "lt", ">": "gt", '"': "quot", "'": "apos"}


def _escapable(value: str) -> str:
    """Return a regular expression that matches the value in all of its escaped forms."""
    units = re.finditer(r"(\\*)([^\\]?)", value, re.DOTALL)
    expression = "".join(_unit(len(unit[1]), unit[2]) for unit in units if unit[0])
    # A match begins at the first of several backslashes: trying each of them takes quadratic time.
    return expression if _is_plain(value[0]) else rf"(?<!\\){expression}"


def _is_plain(character: str) -> bool:
    """Return True if the character is never escaped."""
    return character.isascii() and (character.isalnum() or character in "-._~")


def _unit(backslashes: int, character: str) -> str:
    """Return a regular expression that matches a character after a number of backslashes."""
    if not character:  # At the end of the value, the next backslash may belong to another character.
        counts = (4 * backslashes, 2 * backslashes, backslashes)
        return f"(?:{'|'.join(f'{BACKSLASH}{{{count}}}' for count in counts)})"
    literal = re.escape(character)
    if _is_plain(character):
        return f"{BACKSLASH}{{{backslashes},}}{literal}" if backslashes else literal
    escaped, encoded = "|".join(_escapes(character)), "|".join(_encodings(character))
    if backslashes:
        return f"{BACKSLASH}{{{backslashes},}}(?:{literal}|{escaped}|{encoded})"
    return f"(?:{BACKSLASH}*(?:{encoded}|{literal})|{BACKSLASH}+(?:{escaped}))"


def _escapes(character: str) -> Iterator[str]:
    """Yield what follows a backslash in the escaped forms of a character."""
    code = ord(character)
    if character in NAMED_ESCAPES:
        yield NAMED_ESCAPES[character]
    if code <= 0xFF:
        yield f"x(?i:{code:02x})"
    yield f"U(?i:{code:08x})"
    for encoding, size, prefix in (("utf-16-be", 2, "u"), ("utf-8", 1, "x")):
        data = character.encode(encoding, "surrogatepass")
        parts = (data[start : start + size].hex() for start in range(0, len(data), size))
        yield f"{BACKSLASH}+".join(f"{prefix}(?i:{part})" for part in parts)


def _encodings(character: str) -> Iterator[str]:
    """Yield the escaped forms of a character that have no backslash."""
    yield "".join(f"{PERCENT}(?i:{byte:02x})" for byte in character.encode(errors="surrogatepass"))
    name, code = NAMED_ENTITIES.get(character, "(?!)"), ord(character)
    number = f"{_quoted('#')}(?:0*{code}|[xX]0*(?i:{code:x}))"
    yield f"{_quoted('&')}(?:amp{_quoted(';')})*(?:{name}|{number}){_quoted(';')}"
    if character == " ":
        yield _quoted("+")
    if character == "'":  # A shell's string ends, a quoted quote follows, another string begins.
        yield f"{BACKSLASH}*".join(map(_quoted, "'\"'\"'"))
    if "\ud800" <= character <= "\udfff":
        yield "[?\ufffd]"
    if character in "\x85\u2028\u2029":  # Log entries replace these line breaks.
        yield "\n"


def _quoted(character: str) -> str:
    """Return a regular expression for an ASCII character that URLs may quote."""
    return f"(?:{re.escape(character)}|{PERCENT}(?i:{ord(character):02x}))"
