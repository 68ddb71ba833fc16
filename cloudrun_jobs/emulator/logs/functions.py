"""The functions of the Logging query language.

https://docs.cloud.google.com/logging/docs/view/logging-query-language#functions
"""

from __future__ import annotations

import hashlib
import ipaddress
import re
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, timedelta, tzinfo
from typing import Any
from urllib.parse import unquote
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cloudrun_jobs.emulator.logs.fields import Field, Instant, Length, field_of_entry, scalars
from cloudrun_jobs.emulator.logs.operands import EPOCH, FAILED, boolean, duration, fold, instant, number, pattern
from cloudrun_jobs.emulator.logs.query import Call, MalformedFilter, Member, Node

Predicate = Callable[[Any], bool]
RESOURCE = re.compile(r"(?:projects|folders|organizations|billingAccounts)/[^/]+")
# The delimiters of LOG_ANALYZER, the text analyzer of SEARCH.
DELIMITERS = re.compile(r"[\s\[\]<>(){}|!;,'\"*&?+/:=@.$%\\_-]+")
PHRASES = re.compile(r"`([^`]*)`")


def predicate(call: Call) -> Predicate:
    """Compile a function that is a condition of its own, such as ``log_id("syslog")``."""
    compiler = PREDICATES.get(call.name)
    if compiler is not None:
        return compiler(call)
    if call.name in VALUES:
        raise MalformedFilter(f"expected a comparison of the value of '{call.name}'")
    raise _unknown(call)


def value(call: Call) -> Field:
    """Compile a function whose value is compared, such as ``cast(timestamp, STRING)``."""
    compiler = VALUES.get(call.name)
    if compiler is not None:
        return compiler(call)
    if call.name in PREDICATES:
        raise MalformedFilter(f"the function '{call.name}' has no value that can be compared")
    raise _unknown(call)


def _unknown(call: Call) -> MalformedFilter:
    known = ", ".join(sorted({*PREDICATES, *VALUES}))
    return MalformedFilter(f"unknown function '{call.name}'; expected one of {known}")


def _log_id(call: Call) -> Predicate:
    (argument,) = _arguments(call, 1)
    wanted = fold(unquote(_text(call, argument)))
    return lambda entry: fold(unquote(entry.log_name.partition("/logs/")[2])) == wanted


def _source(call: Call) -> Predicate:
    (argument,) = _arguments(call, 1)
    resource = _text(call, argument)
    if not RESOURCE.fullmatch(resource):
        raise MalformedFilter(f"expected the name of a resource, such as source(projects/P), got '{resource}'")
    prefix = f"{resource}/logs/"
    return lambda entry: entry.log_name.startswith(prefix)


def _sample(call: Call) -> Predicate:
    field, text = _field_and_text(call)
    fraction = number(text)
    if fraction is FAILED or not 0 < fraction <= 1:
        raise MalformedFilter(f"expected a fraction greater than 0 and at most 1 in sample(), got '{text}'")
    return lambda entry: any(_hash(found) <= fraction for found in field.values(entry))


def _hash(found: Any) -> float:
    """Return a number from 0 to 1 that depends only on the value."""
    digest = hashlib.sha256(_as_text(found).encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8]) / (1 << 64)


def _ip_in_net(call: Call) -> Predicate:
    field, text = _field_and_text(call)
    subnet = _network(text)
    if subnet is None:
        raise MalformedFilter(f"expected an IP address or range in ip_in_net(), got '{text}'")
    return lambda entry: any(_is_inside(_network(found), subnet) for found in field.values(entry))


def _network(text: Any) -> Any:
    try:
        return ipaddress.ip_network(text, strict=False) if isinstance(text, str) else None
    except ValueError:
        return None


def _is_inside(network: Any, subnet: Any) -> bool:
    return network is not None and network.version == subnet.version and network.subnet_of(subnet)


def _search(call: Call) -> Predicate:
    """Find all tokens of the query, and all phrases in backticks."""
    if len(call.arguments) == 1:
        values: Callable[[Any], Iterable[Any]] = scalars
        text = _text(call, call.arguments[0])
    else:
        field, text = _field_and_text(call)
        values = field.values
    phrases = [_phrase(phrase) for phrase in PHRASES.findall(fold(text)) if phrase]
    tokens = set(_tokens(PHRASES.sub(" ", text)))
    if not tokens and not phrases:
        raise MalformedFilter("expected words to find in search()")

    def matches(entry: Any) -> bool:
        texts = [found for found in values(entry) if isinstance(found, str)]
        missing = tokens.difference(*map(_tokens, texts))
        return not missing and all(any(phrase.search(fold(found)) for found in texts) for phrase in phrases)

    return matches


def _tokens(text: str) -> list[str]:
    return [token for token in DELIMITERS.split(fold(text)) if token]


def _phrase(text: str) -> re.Pattern[str]:
    edge = DELIMITERS.pattern.removesuffix("+")
    return re.compile(rf"(?:^|(?<={edge})){re.escape(text)}(?:$|(?={edge}))")


def _cast(call: Call) -> Field:
    field, kind, *options = _arguments(call, 2, 3)
    name = _text(call, kind).upper()
    if name not in CASTS:
        raise MalformedFilter(f"expected one of {', '.join(CASTS)} as the type in cast(), got '{name}'")
    if options and name != "STRING":
        raise MalformedFilter(f"cast() to {name} takes no options here")
    zone = _zone(call, options[0]) if options else UTC
    value_type, convert = CASTS[name]
    source = _field(call, field)
    if source.type is None:
        raise MalformedFilter("expected a field with a value in cast()")

    def values(entry: Any) -> Iterable[Any]:
        converted = (convert(_as_text(found, zone)) for found in source.values(entry) if found is not None)
        return (each for each in converted if each is not FAILED)

    return Field(value_type, values, lambda entry: any(True for _ in values(entry)))


def _zone(call: Call, option: Node) -> tzinfo:
    if not isinstance(option, Call) or option.name not in ("timezone", "time_zone"):
        raise MalformedFilter('expected TIMEZONE("…") as the option of cast()')
    (argument,) = _arguments(option, 1)
    name = _text(option, argument)
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise MalformedFilter(f"expected a time zone of the IANA database in cast(), got '{name}'") from error


def _as_text(found: Any, zone: tzinfo = UTC) -> str:
    if isinstance(found, bool):
        return "true" if found else "false"
    if isinstance(found, Instant):
        return _timestamp(found, zone)
    if isinstance(found, Length):
        return f"{found.nanos / 10**9:.9f}".rstrip("0").rstrip(".") + "s"
    if isinstance(found, float) and found.is_integer():
        return str(int(found))
    return str(found.type.values_by_number[found.number].name) if hasattr(found, "type") else str(found)


def _timestamp(found: Instant, zone: tzinfo) -> str:
    moment = (EPOCH + timedelta(seconds=found.seconds)).astimezone(zone)
    whole, offset = moment.isoformat()[:-6], moment.isoformat()[-6:]
    fraction = f".{found.nanos:09d}".rstrip("0").rstrip(".")
    return f"{whole}{fraction}{'Z' if offset == '+00:00' else offset}"


def _integer(text: str) -> Any:
    converted = number(text)
    return converted if converted is FAILED or isinstance(converted, int) else FAILED


CASTS: dict[str, tuple[Any, Callable[[str], Any]]] = {
    "STRING": (str, str),
    "INT64": (float, _integer),
    "FLOAT64": (float, number),
    "BOOL": (bool, boolean),
    "TIMESTAMP": (Instant, instant),
    "DURATION": (Length, duration),
}


def _regexp_extract(call: Call) -> Field:
    field, expression = _arguments(call, 2)
    if not isinstance(expression, Member) or not expression.is_quoted:
        raise MalformedFilter("expected a regular expression in double quotes in regexp_extract()")
    compiled = pattern(expression.source[1:-1].replace("\\\\", "\\"), captures=True)
    if compiled.groups != 1:
        raise MalformedFilter(f"expected one capture group in regexp_extract(), got {compiled.groups}")
    source = _field(call, field)

    def values(entry: Any) -> Iterable[str]:
        matches = (compiled.search(found) for found in source.values(entry) if isinstance(found, str))
        return (match[1] for match in matches if match is not None and match[1] is not None)

    return Field(str, values, lambda entry: any(True for _ in values(entry)))


def _field_and_text(call: Call) -> tuple[Field, str]:
    field, text = _arguments(call, 2)
    return _field(call, field), _text(call, text)


def _field(call: Call, argument: Node) -> Field:
    if isinstance(argument, Call):
        return value(argument)
    return field_of_entry(_member(call, argument).path)


def _text(call: Call, argument: Node) -> str:
    return _member(call, argument).text


def _member(call: Call, argument: Node) -> Member:
    if not isinstance(argument, Member):
        raise MalformedFilter(f"expected a field or a value as an argument of '{call.name}'")
    return argument


def _arguments(call: Call, minimum: int, maximum: int | None = None) -> Sequence[Node]:
    if not minimum <= len(call.arguments) <= (maximum or minimum):
        expected = str(minimum) if maximum is None else f"{minimum} or {maximum}"
        raise MalformedFilter(f"expected {expected} arguments of '{call.name}', got {len(call.arguments)}")
    return call.arguments


PREDICATES: dict[str, Callable[[Call], Predicate]] = {
    "log_id": _log_id,
    "source": _source,
    "sample": _sample,
    "ip_in_net": _ip_in_net,
    "search": _search,
}
VALUES: dict[str, Callable[[Call], Field]] = {"cast": _cast, "regexp_extract": _regexp_extract}
