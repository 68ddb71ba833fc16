"""The keys of locks: equal for the same work, different for different work."""

from __future__ import annotations

import copy
import re
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from enum import Enum, Flag, StrEnum
from ipaddress import ip_address, ip_interface, ip_network
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloudrun_jobs.exceptions import InvalidArguments, InvalidJob
from cloudrun_jobs.locks import names
from tests.jobs.management.commands import echo


class Size(Enum):
    SMALL = "s"
    LARGE = "l"


class Right(Flag):
    READ = 1
    WRITE = 2


class Colour(StrEnum):
    RED = "red"


plain = st.none() | st.booleans() | st.integers() | st.text() | st.floats() | st.binary()
numbers = st.complex_numbers() | st.decimals() | st.fractions()
times = st.dates() | st.datetimes() | st.times() | st.timedeltas() | st.timezones()
others = st.uuids() | st.ip_addresses() | st.sampled_from([*Size, *Right, *Colour, range(3), re.compile("x"), UTC])
values = st.recursive(
    plain | numbers | times | others,
    lambda inner: st.lists(inner) | st.tuples(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@given(st.dictionaries(st.text(), values))
def test_key_ignores_the_order_of_options(options):
    """Equal dictionaries have one key."""
    reordered = dict(reversed(options.items()))

    assert names.for_arguments("job", options) == names.for_arguments("job", reordered)


@given(values)
def test_values_of_options_have_keys(value):
    """Every type of value that argparse's types commonly return has a key, alone or in a set."""
    assert names.has_json_form({"option": value})
    assert names.for_arguments("job", value) == names.for_arguments("job", copy.deepcopy(value))


@given(st.sets(times | others))
def test_key_ignores_the_order_of_sets(items):
    """A set has no order, and its hashes are others in another process."""
    as_list = sorted(items, key=hash, reverse=True)

    assert names.for_arguments("job", items) == names.for_arguments("job", frozenset(as_list))


@given(st.text(min_size=1))
def test_keys_are_short_ascii(name):
    """The key fits a database's index and a Redis pattern, whatever the name."""
    found = names.lock_name(name)

    assert re.fullmatch(r"crj1:[0-9a-f]{8}:[a-z0-9_-]{1,60}:[0-9a-f]{32}", found.key)
    assert len(found.label) <= 121
    assert found.label.isprintable()


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"a": 1}, {"a": "1"}),
        ({"a": 1}, {"a": True}),
        ({"a": None}, {}),
        ({"a": None}, {"a": "None"}),
        ({"a": [1, 2]}, {"a": [2, 1]}),
        ({1: "x"}, {"1": "x"}),
        ({"a": "é"}, {"a": "e\u0301"}),
        ({"a": Decimal("1.0")}, {"a": Decimal("1.00")}),
        ({"a": date(2026, 1, 1)}, {"a": "2026-01-01"}),
        ({"a": datetime(2026, 1, 1, 0, 0, 0, 1)}, {"a": datetime(2026, 1, 1, 0, 0, 0, 2)}),  # noqa: DTZ001
        ({"a": "x" * 10_000}, {"a": "x" * 9_999 + "y"}),
        ({"a": timedelta(seconds=1)}, {"a": timedelta(seconds=1, microseconds=1)}),
        ({"a": timedelta(days=1)}, {"a": timedelta(hours=25)}),
        ({"a": float("inf")}, {"a": float("-inf")}),
        ({"a": float("inf")}, {"a": "inf"}),
        ({"a": Size.SMALL}, {"a": Size.LARGE}),
        ({"a": Size.SMALL}, {"a": "s"}),
        ({"a": Right.READ}, {"a": Right.READ | Right.WRITE}),
        ({"a": b"x"}, {"a": "78"}),
        ({"a": range(3)}, {"a": range(4)}),
        ({"a": ZoneInfo("Asia/Tokyo")}, {"a": ZoneInfo("Asia/Seoul")}),
        ({"a": UTC}, {"a": timezone(timedelta(hours=9))}),
        ({"a": ip_address("10.0.0.1")}, {"a": ip_network("10.0.0.1")}),
        ({"a": ip_interface("10.0.0.1/8")}, {"a": ip_interface("10.0.0.1/9")}),
        ({"a": {1, 2}}, {"a": [1, 2]}),
        ({"a": re.compile("x")}, {"a": re.compile("x", re.IGNORECASE)}),
    ],
)
def test_different_arguments_have_different_keys(one, other):
    """Similar values of different types or precision have different keys."""
    assert names.for_arguments("job", one) != names.for_arguments("job", other)


def test_names_jobs_and_arguments_have_different_keys():
    """A lock of the user's own may be named like a job."""
    found = {names.lock_name("job").key, names.for_job("job").key, names.for_arguments("job", {}).key}

    assert len(found) == 3


@pytest.mark.parametrize("change", [{"PROJECT": "other"}, {"ENVIRONMENT": "staging"}])
def test_projects_and_environments_have_different_keys(settings, change):
    """One server may keep the locks of several."""
    before = names.lock_name("x").key
    settings.CLOUDRUN_JOBS = {"ENVIRONMENT": "test", **change}

    assert names.lock_name("x").key != before


def test_arguments_are_not_in_key_or_label():
    """They may be personal data."""
    found = names.for_arguments("job", {"name": "hunter2"})

    assert "hunter2" not in found.key + found.label


def test_lock_key_without_json_form_is_refused_by_delay(monkeypatch):
    """The call site gets `InvalidArguments`."""
    monkeypatch.setattr(echo.Command, "get_lock_key", lambda self, **options: object())

    with pytest.raises(InvalidArguments, match="get_lock_key"):
        echo.Command().delay()


def test_unknown_lock_argument_is_refused(monkeypatch):
    """The error suggests the option's name."""
    monkeypatch.setattr(echo.Command, "lock_args", ("partnr",), raising=False)

    with pytest.raises(InvalidJob, match="Did you mean 'partner'"):
        echo.Command().delay()


@pytest.mark.parametrize(
    ("attribute", "value"),
    [
        ("overlap", "maybe"),
        ("overlap", None),
        ("lock_scope", "world"),
        ("on_lock_error", "skip"),
        ("lock_lease", 119),
        ("lock_lease", timedelta(hours=1, seconds=1)),
        ("lock_lease", "5m"),
        ("lock_timeout", -1),
        ("lock_timeout", "1h"),
        ("lock_args", "partner"),
        ("lock_args", [1]),
    ],
)
def test_invalid_declaration_is_refused(monkeypatch, attribute: str, value: Any):
    """The error names the attribute, the expected value and the given one."""
    monkeypatch.setattr(echo.Command, attribute, value, raising=False)

    with pytest.raises(InvalidJob, match=f"{attribute}: expected"):
        echo.Command().spec  # noqa: B018
