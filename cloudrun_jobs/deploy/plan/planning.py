"""The difference between what is declared and what was found."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from cloudrun_jobs.exceptions import CloudRunJobsError
from cloudrun_jobs.spec.ownership import RESERVATION, OwnershipLabel


@dataclass(frozen=True, slots=True)
class Redacted:
    """A value that is compared and never shown: it may be what should have been a secret."""

    value: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Desired:
    """One entry or job as the code would have it."""

    id: str
    label: str  # What people call it.
    mark: OwnershipLabel
    fields: Mapping[str, Any]  # Without the mark.
    summary: Callable[[], str] = str  # Told of a new one, or of one whose fields of `summarised` change.
    summarised: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Existing:
    """One entry or job as it is."""

    id: str
    fields: Mapping[str, Any]
    mark: OwnershipLabel | None = None
    paused: bool = False
    trouble: str = ""  # What its service says is wrong with it.
    origin: Any = None  # The service's own message, for the store.


@dataclass(frozen=True, slots=True)
class FieldChange:
    name: str
    old: Any
    new: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One thing to do."""

    action: Literal["create", "update", "delete"]
    id: str
    label: str
    fields: tuple[FieldChange, ...] = ()
    declared: Desired | None = None
    found: Existing | None = None

    @property
    def is_paused(self) -> bool:
        return self.found is not None and self.found.paused


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """All of it. Orphans are ours and declared no more; they are deleted only by a plan that prunes."""

    changes: tuple[Change, ...] = ()
    orphans: tuple[Change, ...] = ()
    unchanged: tuple[str, ...] = ()
    paused: tuple[str, ...] = ()  # Paused by hand, which nothing here undoes; changed or not.
    troubles: Mapping[str, str] = field(default_factory=dict)
    prune: bool = False

    @property
    def has_drift(self) -> bool:
        return bool(self.changes or self.orphans)

    @property
    def to_apply(self) -> tuple[Change, ...]:
        return (*self.changes, *self.orphans) if self.prune else self.changes


def plan(
    declared: Sequence[Desired],
    found: Sequence[Existing],
    *,
    environment: str,
    commands: Collection[str] | None = None,
    prune: bool = False,
) -> Plan:
    """Compare. With `commands`, orphans are looked for among those of these commands alone."""
    existing = {item.id: item for item in found}
    reject_duplicate_ids(declared)
    pairs = [(item, existing.get(item.id)) for item in declared]
    _reject_foreign_environment(pairs, environment)
    changes = [change for item, old in pairs if (change := _change(item, old))]
    changed = {change.id for change in changes}
    orphans = _orphans({item.id for item in declared}, found, environment, commands)
    return Plan(
        changes=tuple(changes),
        orphans=tuple(Change(action="delete", id=item.id, label=item.id, found=item) for item in orphans),
        unchanged=tuple(item.label for item in declared if item.id not in changed),
        paused=tuple(item.label for item, old in pairs if old and old.paused),
        troubles={item.label: old.trouble for item, old in pairs if old and old.trouble},
        prune=prune,
    )


def reject_duplicate_ids(declared: Sequence[Desired]) -> None:
    """Raise if two of them would be one."""
    first: dict[str, Desired] = {}
    for item in declared:
        if (other := first.setdefault(item.id, item)) is not item:
            words = f"{other.label} and {item.label} would both be {item.id!r}."
            raise CloudRunJobsError(words, hint="Rename one of them.")


def _reject_foreign_environment(pairs: Sequence[tuple[Desired, Existing | None]], environment: str) -> None:
    for item, old in pairs:
        if old and old.mark and old.mark.environment != environment:
            words = f"{item.label}: {item.id!r} is there already, of the environment {old.mark.environment!r}."
            raise CloudRunJobsError(words, hint="Rename the command, or the environment.")


def _change(declared: Desired, found: Existing | None) -> Change | None:
    if found is None:
        new = {"mark": declared.mark, **declared.fields}
        fields = tuple(FieldChange(name, None, value) for name, value in new.items())
        return Change(action="create", id=declared.id, label=declared.label, fields=fields, declared=declared)
    fields = tuple(_differences(declared, found))
    if not fields:
        return None
    return Change(
        action="update",
        id=declared.id,
        label=declared.label,
        fields=fields,
        declared=declared,
        found=found,
    )


def _differences(declared: Desired, found: Existing) -> Iterator[FieldChange]:
    """Yield what is not as declared, and what was declared once and is no more, which goes back to nothing."""
    dropped = [name for name in (found.mark.fields if found.mark else ()) if name not in declared.fields]
    wanted = {**declared.fields, **dict.fromkeys(dropped)}
    for name, new in wanted.items():
        if (old := found.fields.get(name)) != new:
            yield FieldChange(name, old, new)
    if found.mark != declared.mark:
        yield FieldChange("mark", found.mark, declared.mark)


def _orphans(
    declared: Collection[str], found: Sequence[Existing], environment: str, commands: Collection[str] | None
) -> Iterator[Existing]:
    for item in found:
        mark = item.mark
        if item.id in declared or mark is None or mark.kind == RESERVATION or mark.environment != environment:
            continue
        if commands is None or mark.command in commands:
            yield item
