"""The body of a Scheduler job is decoded as it was encoded, and any other body is recognised."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloudrun_jobs.backends.cloudrun.targets import decode_body, encode_body, tick_body

TEXT = st.text(st.characters(exclude_categories=["Cs"]))


@given(st.lists(TEXT), TEXT, st.booleans())
def test_body_round_trips(args: list[str], tick: str, to_service: bool) -> None:
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
def test_any_body_can_be_decoded(body: bytes) -> None:
    """A foreign body raises no error: it either equals what would be encoded or is recognised as foreign."""
    decoded = decode_body(body)

    if decoded["to_service"] is not None:
        again = encode_body(tick_body(**decoded))
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
def test_similar_body_is_foreign(data: Any) -> None:
    """A body that is almost an encoded one is drift."""
    assert decode_body(encode_body(data))["to_service"] is None
