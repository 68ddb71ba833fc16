"""Print a plan as lines of text, and as data for JSON."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Any

from cloudrun_jobs.deploy.plan.planning import Change, FieldChange, Plan, Redacted
from cloudrun_jobs.spec.ownership import OwnershipLabel

SIGNS = {"create": "+", "update": "~", "delete": "-"}
DERIVED_FIELDS = ("ownership", "tick", "to_service")  # Derived from others; shown if no other changed.
MAX_LABEL_WIDTH = 40  # Columns.


def as_lines(plan: Plan) -> Iterator[tuple[str, Change]]:
    """Yield a line for each change and each orphan."""
    changes = (*plan.changes, *plan.orphans)
    width = min(MAX_LABEL_WIDTH, max((len(change.label) for change in changes), default=0))
    for change in changes:
        yield f"{SIGNS[change.action]} {change.label.ljust(width)}  {_describe(change, plan)}".rstrip(), change


def summary(plan: Plan) -> str:
    """Return how many resources are unchanged, which are paused, and which jobs are left out."""
    others = ", ".join(f"{command} on {alias!r}" for command, alias in sorted(plan.other_backends.items()))
    left_out = f", {len(plan.other_backends)} left out ({others})" if others else ""
    paused = f", {len(plan.paused)} paused by hand ({', '.join(plan.paused)}; left paused)" if plan.paused else ""
    return f"= {len(plan.unchanged)} unchanged{paused}{left_out}"


def as_data(plan: Plan) -> dict[str, Any]:
    """Return the plan as values that JSON can represent."""
    return {
        "changes": [_change_as_data(change) for change in plan.changes],
        "orphans": [change.id for change in plan.orphans],
        "unchanged": list(plan.unchanged),
        "paused": list(plan.paused),
        "troubles": dict(plan.troubles),
        "other_backends": dict(plan.other_backends),
    }


def _change_as_data(change: Change) -> dict[str, Any]:
    fields = {field.name: {"old": _as_json(field.old), "new": _as_json(field.new)} for field in change.fields}
    return {"action": change.action, "id": change.id, "name": change.label, "fields": fields}


def _describe(change: Change, plan: Plan) -> str:
    desired = change.desired
    if desired is None:
        return f"({_orphan_reason(change, plan)}; {'deleted' if plan.prune else 'will be deleted with --prune'})"
    if change.action == "create":
        return desired.summary()
    shown = shown_fields(change)
    parts = [describe_field(field) for field in shown]
    if not desired.summary_fields.isdisjoint(field.name for field in shown):
        parts.append(desired.summary())
    if change.existing and change.existing.paused:
        parts.append("(paused by hand; left paused)")
    return "  ".join(parts)


def _orphan_reason(change: Change, plan: Plan) -> str:
    owner = change.existing.ownership if change.existing else None
    if owner and owner.command in plan.other_backends:
        return f"{owner.command} runs on the backend {plan.other_backends[owner.command]!r}"
    return "no command declares it"


def shown_fields(change: Change) -> Sequence[FieldChange]:
    """Return the fields that differ, without those that follow from others."""
    return [field for field in change.fields if field.name not in DERIVED_FIELDS] or change.fields


def describe_field(field: FieldChange) -> str:
    """Return the old and the new value of a field; those of variables are never shown."""
    if isinstance(field.old, Redacted) and isinstance(field.new, Redacted):
        return f"{field.name}: another value"
    if isinstance(field.old, OwnershipLabel) and field.old.command == field.new.command:
        return f"{field.name}: declares {_as_text(field.old.fields)} → {_as_text(field.new.fields)}"
    return f"{field.name}: {_as_text(field.old)} → {_as_text(field.new)}"


def _as_text(value: Any) -> str:
    match value:
        case None | () | "":
            return "none"
        case Redacted():
            return "a value"
        case OwnershipLabel():
            return f"{value.command} of {value.environment}"
        case timedelta():
            return f"{value.total_seconds():g}s"
        case tuple():
            return shlex.join(map(str, value))
    return str(value)


def _as_json(value: Any) -> Any:
    if isinstance(value, tuple):
        return list(map(str, value))
    return value if value is None or isinstance(value, int | str | bool) else _as_text(value)
