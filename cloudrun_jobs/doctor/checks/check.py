"""One check of the table."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from cloudrun_jobs.doctor.facts import Facts
from cloudrun_jobs.doctor.findings import Finding


def once(facts: Facts) -> Iterable[None]:
    """Yield the only subject of a check that concerns the whole project."""
    return (None,)


class Check(NamedTuple):
    """Yields findings with these ids for each of its subjects. An error of one does not affect the rest."""

    ids: tuple[str, ...]
    find: Callable[[Facts, Any], Iterator[Finding]]
    each: Callable[[Facts], Iterable[Any]] = once
