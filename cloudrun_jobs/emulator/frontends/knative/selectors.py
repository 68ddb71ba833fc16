"""Label selectors, which filter the lists of v1.

https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#label-selectors
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from cloudrun_jobs.emulator.errors import invalid

KEY = r"(?P<key>[A-Za-z0-9](?:[A-Za-z0-9./_-]*[A-Za-z0-9])?)"
VALUE = r"(?:[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)?"
EQUALITY = re.compile(rf"{KEY}\s*(?P<operator>==|=|!=)\s*(?P<value>{VALUE})")
MEMBERSHIP = re.compile(rf"{KEY}\s+(?P<operator>in|notin|notIn)\s*\((?P<values>[^()]*)\)")
EXISTENCE = re.compile(rf"(?P<operator>!?)\s*{KEY}")
BETWEEN_REQUIREMENTS = re.compile(r",(?![^()]*\))")

Requirement = Callable[[Mapping[str, str]], bool]


@dataclass(frozen=True)
class Selector:
    """A conjunction of requirements on labels."""

    requirements: tuple[Requirement, ...] = ()
    required: Mapping[str, str] = field(default_factory=dict)  # The values that labels must have.

    def matches(self, labels: Mapping[str, str]) -> bool:
        return all(requirement(labels) for requirement in self.requirements)


def parse(text: str) -> Selector:
    """Return the selector, or raise INVALID_ARGUMENT. An empty text selects everything."""
    if not text.strip():
        return Selector()
    requirements, required = [], {}
    for part in BETWEEN_REQUIREMENTS.split(text):
        requirements.append(_requirement(part.strip(), text))
        equality = EQUALITY.fullmatch(part.strip())
        if equality and equality["operator"] != "!=":
            required[equality["key"]] = equality["value"]
    return Selector(tuple(requirements), required)


def _requirement(part: str, text: str) -> Requirement:
    if match := EQUALITY.fullmatch(part):
        return _one_of(match["key"], {match["value"]}, negated=match["operator"] == "!=")
    if match := MEMBERSHIP.fullmatch(part):
        values = {value.strip() for value in match["values"].split(",")}
        if all(re.fullmatch(VALUE, value) for value in values):
            return _one_of(match["key"], values, negated=match["operator"] != "in")
    if match := EXISTENCE.fullmatch(part):
        key, expected = match["key"], not match["operator"]
        return lambda labels: (key in labels) is expected
    raise invalid(f"Invalid label selector {text!r}: expected KEY=VALUE, KEY in (VALUES) or KEY, got {part!r}.")


def _one_of(key: str, values: set[str], *, negated: bool) -> Requirement:
    # As in Kubernetes, a resource without the label meets a negated requirement.
    return lambda labels: (labels.get(key) in values) is not negated
