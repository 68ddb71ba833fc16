"""Write new and changed rates to the database."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date

from django.db import connection

from .ecb import Rates
from .models import Rate


@dataclass(frozen=True, slots=True)
class Changes:
    """The rows to write so that the database holds the given rates."""

    created: list[Rate] = field(default_factory=list)
    updated: list[Rate] = field(default_factory=list)


def compare(days: dict[date, Rates]) -> Changes:
    """Return the rates that are missing in the database or differ from it."""
    rows = Rate.objects.filter(date__in=days).values_list("date", "currency", "value")
    stored = {(day, currency): value for day, currency, value in rows}
    changes = Changes()
    for day, rates in days.items():
        for currency, value in rates.items():
            before = stored.get((day, currency))
            if before != value:
                found = changes.created if before is None else changes.updated
                found.append(Rate(date=day, currency=currency, value=value))
    return changes


def write(changes: Changes) -> None:
    """Write the changes, in one statement per batch."""
    # MySQL determines the violated constraint itself, and Django accepts no fields for it there.
    named = connection.features.supports_update_conflicts_with_target
    Rate.objects.bulk_create(
        [*changes.created, *changes.updated],
        update_conflicts=True,
        update_fields=["value"],
        unique_fields=["date", "currency"] if named else None,
    )
