"""Writes rates into the database, and only those that are new or differ."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date

from django.db import connection

from .ecb import Rates
from .models import Rate


@dataclass(frozen=True, slots=True)
class Changes:
    """What must be written for the database to hold the rates it was compared with."""

    created: list[Rate] = field(default_factory=list)
    updated: list[Rate] = field(default_factory=list)


def compare(days: dict[date, Rates]) -> Changes:
    """Find out what the database lacks or has differently."""
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
    """Write what `compare()` found, in one statement per batch."""
    # MySQL finds the violated constraint by itself, and Django refuses to name it there.
    named = connection.features.supports_update_conflicts_with_target
    Rate.objects.bulk_create(
        [*changes.created, *changes.updated],
        update_conflicts=True,
        update_fields=["value"],
        unique_fields=["date", "currency"] if named else None,
    )
