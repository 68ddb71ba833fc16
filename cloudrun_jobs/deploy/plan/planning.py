"""Compute the difference between the desired and the existing resources."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from cloudrun_jobs.exceptions import CloudRunJobsError
from cloudrun_jobs.spec.ownership import RESERVATION, OwnershipLabel


@dataclass(frozen=True, slots=True)
class Redacted:
    """A value that is compared but never shown: it may be a secret that was declared as plain text."""

    value: Any


@dataclass(frozen=True, kw_only=True)
class Desired:
    """A resource as the code declares it. Subclasses add its fields; None means not declared."""

    summary_fields: ClassVar[frozenset[str]] = frozenset()  # A change of these shows the summary.

    id: str
    label: str  # Its name in the plan.
    ownership: OwnershipLabel
    note: str = ""
    initial: frozenset[str] = frozenset()  # The fields that only a new resource gets.

    @property
    def fields(self) -> dict[str, Any]:
        """The declared fields by name."""
        values = flatten(
            {name: vars(self)[name] for name in vars(self) if name not in Desired.__dataclass_fields__}
        )
        return values | {name: None for name in self.ownership.fields if name not in values}

    def summary(self) -> str:
        """Return the text for a new resource."""
        return self.note


@dataclass(frozen=True, slots=True, kw_only=True)
class Existing:
    """A resource as it is in the cloud."""

    id: str
    fields: Mapping[str, Any]
    ownership: OwnershipLabel | None = None
    paused: bool = False
    trouble: str = ""  # The problem that its service reports.
    message: Any = None  # The service's message, for the store.


@dataclass(frozen=True, slots=True)
class FieldChange:
    name: str
    old: Any
    new: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One resource to create, update or delete."""

    action: Literal["create", "update", "delete"]
    id: str
    label: str
    fields: tuple[FieldChange, ...] = ()
    desired: Desired | None = None
    existing: Existing | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """All changes. Orphans are owned but no longer declared; they are deleted only if `prune` is set."""

    changes: tuple[Change, ...] = ()
    orphans: tuple[Change, ...] = ()
    unchanged: tuple[str, ...] = ()
    paused: tuple[str, ...] = ()  # Paused by hand, which apply() never undoes; with or without changes.
    troubles: Mapping[str, str] = field(default_factory=dict)
    other_backends: Mapping[str, str] = field(default_factory=dict)  # Those of the jobs that are left out.
    prune: bool = False

    @property
    def has_drift(self) -> bool:
        return bool(self.changes or self.orphans)

    @property
    def to_apply(self) -> tuple[Change, ...]:
        return (*self.changes, *self.orphans) if self.prune else self.changes


def plan(
    desired: Sequence[Desired],
    existing: Sequence[Existing],
    *,
    environment: str,
    commands: Collection[str] | None = None,
    prune: bool = False,
    other_backends: Mapping[str, str] | None = None,
) -> Plan:
    """Return the plan. With `commands`, only resources of these commands can be orphans.

    `other_backends` are the aliases of backends, by the commands that are left out because these run them.
    """
    reject_duplicate_ids(desired)
    by_id = {item.id: item for item in existing}
    pairs = [(item, by_id.get(item.id)) for item in desired]
    _reject_foreign_environment(pairs, environment)
    changes = [change for item, old in pairs if (change := _change(item, old))]
    changed = {change.id for change in changes}
    orphans = _orphans({item.id for item in desired}, existing, environment, commands)
    return Plan(
        changes=tuple(changes),
        orphans=tuple(Change(action="delete", id=item.id, label=item.id, existing=item) for item in orphans),
        unchanged=tuple(item.label for item in desired if item.id not in changed),
        paused=tuple(item.label for item, old in pairs if old and old.paused),
        troubles={item.label: old.trouble for item, old in pairs if old and old.trouble},
        prune=prune,
        other_backends=other_backends or {},
    )


def flatten(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return fields by name without those that are None; the items of a mapping are named as "labels.team"."""
    mappings = {name: value for name, value in values.items() if isinstance(value, Mapping)}
    plain = {name: value for name, value in values.items() if value is not None and name not in mappings}
    return plain | {f"{name}.{key}": item for name, value in mappings.items() for key, item in value.items()}


def reject_duplicate_ids(desired: Sequence[Desired]) -> None:
    """Raise `CloudRunJobsError` if two resources have the same id."""
    first: dict[str, Desired] = {}
    for item in desired:
        if (other := first.setdefault(item.id, item)) is not item:
            message = f"{other.label} and {item.label} would both be {item.id!r}."
            raise CloudRunJobsError(message, hint="Rename one of them.")


def _reject_foreign_environment(pairs: Sequence[tuple[Desired, Existing | None]], environment: str) -> None:
    for item, old in pairs:
        if old and old.ownership and old.ownership.environment != environment:
            owner = old.ownership.environment
            message = f"{item.label}: {item.id!r} exists already and belongs to the environment {owner!r}."
            raise CloudRunJobsError(message, hint="Rename the command, or the environment.")


def _change(desired: Desired, existing: Existing | None) -> Change | None:
    fields = tuple(_field_changes(desired, existing))
    if not fields:
        return None
    return Change(
        action="update" if existing else "create",
        id=desired.id,
        label=desired.label,
        fields=fields,
        desired=desired,
        existing=existing,
    )


def _field_changes(desired: Desired, existing: Existing | None) -> Iterator[FieldChange]:
    """Yield the fields that differ. One that the code declared once and no longer does is removed."""
    new_fields = desired.fields
    if existing is None:
        new_fields = {"ownership": desired.ownership, **new_fields}
        yield from (FieldChange(name, None, value) for name, value in new_fields.items())
        return
    new_fields = {name: value for name, value in new_fields.items() if name not in desired.initial}
    owned = existing.ownership.fields if existing.ownership else ()
    for name, new in (new_fields | {name: None for name in owned if name not in new_fields}).items():
        if (old := existing.fields.get(name)) != new:
            yield FieldChange(name, old, new)
    if existing.ownership != desired.ownership:
        yield FieldChange("ownership", existing.ownership, desired.ownership)


def _orphans(
    desired: Collection[str], existing: Sequence[Existing], environment: str, commands: Collection[str] | None
) -> Iterator[Existing]:
    for item in existing:
        owner = item.ownership
        if item.id in desired or owner is None or owner.kind == RESERVATION or owner.environment != environment:
            continue
        if commands is None or owner.command in commands:
            yield item
