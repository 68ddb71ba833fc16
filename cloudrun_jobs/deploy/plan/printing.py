"""A plan in lines for people, and in data for machines."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any

from cloudrun_jobs.deploy.plan.planning import Change, FieldChange, Plan, Redacted
from cloudrun_jobs.spec.ownership import OwnershipLabel

SIGNS = {"create": "+", "update": "~", "delete": "-"}
# Fields that follow from others: told only when nothing else is.
CONSEQUENCES = ("mark", "tick", "to_service")
WIDEST = 40


def as_lines(plan: Plan) -> Iterator[tuple[str, Change]]:
    """Yield a line for each change, and each orphan."""
    changes = (*plan.changes, *plan.orphans)
    width = min(WIDEST, max((len(change.label) for change in changes), default=0))
    for change in changes:
        yield f"{SIGNS[change.action]} {change.label.ljust(width)}  {_told(change, plan)}".rstrip(), change


def summary(plan: Plan) -> str:
    """Say what stays: how many are unchanged, and which somebody paused."""
    paused = f", {len(plan.paused)} paused by hand ({', '.join(plan.paused)}; left paused)" if plan.paused else ""
    return f"= {len(plan.unchanged)} unchanged{paused}"


def as_data(plan: Plan) -> dict[str, Any]:
    """Return the plan as something JSON can say."""
    return {
        "changes": [_change_as_data(change) for change in plan.changes],
        "orphans": [change.id for change in plan.orphans],
        "unchanged": list(plan.unchanged),
        "paused": list(plan.paused),
        "troubles": dict(plan.troubles),
    }


def _change_as_data(change: Change) -> dict[str, Any]:
    fields = {field.name: {"old": _as_datum(field.old), "new": _as_datum(field.new)} for field in change.fields}
    return {"action": change.action, "id": change.id, "name": change.label, "fields": fields}


def _told(change: Change, plan: Plan) -> str:
    if change.action == "delete":
        return f"(no command declares it; {'deleted' if plan.prune else 'will be deleted with --prune'})"
    declared = change.declared
    if change.action == "create":
        return declared.summary() if declared else ""
    told = [field for field in change.fields if field.name not in CONSEQUENCES] or change.fields
    parts = [_told_field(field) for field in told]
    if declared and not declared.summarised.isdisjoint(field.name for field in told):
        parts.append(declared.summary())
    if change.is_paused:
        parts.append("(paused by hand; left paused)")
    return "  ".join(parts)


def _told_field(field: FieldChange) -> str:
    if isinstance(field.old, Redacted) and isinstance(field.new, Redacted):
        return f"{field.name}: another value"
    return f"{field.name}: {_in_words(field.old)} → {_in_words(field.new)}"


def _in_words(value: Any) -> str:
    match value:
        case None | () | []:
            return "none"
        case Redacted():
            return "a value"
        case OwnershipLabel():
            return f"{value.command} of {value.environment}"
        case timedelta():
            return f"{value.total_seconds():g}s"
        case tuple() | list():
            return shlex.join(map(str, value))
        case Mapping():
            return json.dumps(dict(value), default=list)
    return str(value)


def _as_datum(value: Any) -> Any:
    if isinstance(value, tuple | list):
        return list(map(str, value))
    return value if value is None or isinstance(value, int | str | bool) else _in_words(value)
