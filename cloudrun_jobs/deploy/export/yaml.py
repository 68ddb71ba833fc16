"""The jobs as documents of YAML, in the little of it that this needs: blocks, and text in quotes if it is odd."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from cloudrun_jobs.deploy.export import knative
from cloudrun_jobs.deploy.export.declarations import Declarations

PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9_./@-]*")
# Words that YAML, of one version or the other, takes for something else than text.
WORDS = frozenset({"null", "true", "false", "yes", "no", "on", "off", "y", "n"})
# What YAML wants escaped and JSON does not.
UNPRINTABLE = re.compile("[\x7f-\x9f\u2028\u2029\ud800-\udfff\ufeff\ufffe\uffff]")


def text(declarations: Declarations) -> str:
    """Return a document for each job."""
    return "---\n".join(written(knative.job(job, declarations.region)) for job in declarations.jobs)


def written(document: dict[str, Any]) -> str:
    return "".join(f"{line}\n" for line in _lines(document))


def _lines(value: Any) -> Iterator[str]:
    match value:
        case dict() if value:
            for name, item in value.items():
                yield from _entry(name, item)
        case list() if value:
            for item in value:
                yield from _item(item)
        case _:
            yield _scalar(value)


def _entry(name: str, value: Any) -> Iterator[str]:
    if isinstance(value, dict | list) and value:
        yield f"{_scalar(name)}:"
        yield from (f"  {line}" for line in _lines(value))
    else:
        yield f"{_scalar(name)}: {_scalar(value)}"


def _item(value: Any) -> Iterator[str]:
    first, *others = _lines(value)
    yield f"- {first}"
    yield from (f"  {line}" for line in others)


def _scalar(value: Any) -> str:
    if isinstance(value, str) and PLAIN.fullmatch(value) and value.lower() not in WORDS:
        return value
    text = json.dumps(value, ensure_ascii=False)
    return UNPRINTABLE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
