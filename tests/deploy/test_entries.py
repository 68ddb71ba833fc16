"""The body of an entry is read as it was written, and anything else is told apart from it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloudrun_jobs.backends.cloudrun.targets import decode_body, encode_body, tick_body

TEXT = st.text(st.characters(exclude_categories=["Cs"]))


@given(st.lists(TEXT), TEXT, st.booleans())
def test_a_body_is_read_as_it_was_written(args: list[str], tick: str, to_service: bool) -> None:
    """Arguments of any text survive JSON."""
    body = encode_body(tick_body(args, tick, to_service=to_service))

    assert decode_body(body) == {"args": tuple(args), "tick": tick, "to_service": to_service}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | TEXT,
    lambda inner: (
        st.lists(inner) | st.dictionaries(st.sampled_from(["args", "schedule", "overrides", "x"]), inner)
    ),
)


@given(st.binary() | JSON.map(lambda data: json.dumps(data).encode()))
def test_any_body_can_be_read(body: bytes) -> None:
    """What somebody else wrote breaks nothing; it reads as what would be written, or as not ours."""
    found = decode_body(body)

    if found["to_service"] is not None:
        again = encode_body(tick_body(found["args"], found["tick"], to_service=found["to_service"]))
        assert json.loads(again) == json.loads(body)


@pytest.mark.parametrize(
    "data",
    [
        {"overrides": {}},
        {"overrides": {"containerOverrides": []}},
        {"overrides": {"containerOverrides": [{"args": ["x"], "env": []}]}},
        {"overrides": {"containerOverrides": [{"args": "x", "env": [{"value": "t"}]}]}},
        {"args": ["x"]},
        {"args": ["x"], "schedule": "t", "more": 1},
        [],
        None,
    ],
)
def test_a_body_of_others_is_not_ours(data: Any) -> None:
    """One that nearly looks like ours is drift all the same."""
    assert decode_body(encode_body(data))["to_service"] is None
