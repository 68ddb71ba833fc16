"""Secret Manager and the local stores have the same results and errors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import uuid4

from django.test import override_settings
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cloudrun_jobs import secrets
from cloudrun_jobs.exceptions import SecretError
from tests.secret_stores.conftest import SecretManager

names = st.sampled_from(["token", "fresh"])
numbers = st.integers(0, 4)
values = st.binary(max_size=3) | st.sampled_from(["text", "\x00", "\ud800", "é"])
update = st.tuples(
    st.just(secrets.update),
    st.tuples(names, values),
    st.fixed_dictionaries({"create": st.booleans()}, optional={"expected": numbers, "keep": st.integers(1, 3)}),
)
read = st.tuples(
    st.sampled_from([secrets.read, secrets.read_bytes]),
    st.tuples(names | st.builds("{}:{}".format, names, st.integers(1, 4))),
    st.just({}),
)
latest = st.tuples(st.just(secrets.latest_version), st.tuples(names), st.just({}))
Call = tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]


def outcome(function: Callable[..., Any], arguments: tuple[Any, ...], options: dict[str, Any]) -> Any:
    try:
        return function(*arguments, **options)
    except SecretError as error:
        return type(error)


def outcomes(calls: list[Call], configured: dict[str, Any]) -> list[Any]:
    with override_settings(CLOUDRUN_JOBS=configured):
        return [outcome(*call) for call in calls]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=25)
@given(calls=st.lists(update | update | read | latest, min_size=3, max_size=12))
def test_stores_agree(emulator, tmp_path, calls):
    """Any sequence of calls has the same results and errors in memory, in a file and in Secret Manager."""
    manager = SecretManager(emulator, {})
    in_memory = outcomes(calls, {"ENVIRONMENT": "local", "SECRETS": {}})
    in_file = outcomes(calls, {"ENVIRONMENT": "local", "SECRETS": tmp_path / f"{uuid4()}.json"})

    assert in_memory == in_file == outcomes(calls, manager.settings)
