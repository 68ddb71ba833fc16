"""The JSON form of a file of secrets."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from cloudrun_jobs.conf import LocalSecrets
from cloudrun_jobs.secrets.local import Entry, decode, encode
from cloudrun_jobs.secrets.payload import Payload

values = st.binary(min_size=1, max_size=40) | st.text(min_size=1, max_size=40).map(str.encode)
entries = st.builds(Entry, values.map(Payload), st.booleans()) | st.just(Entry(None, enabled=False))
names = st.text("abcXYZ019_-", min_size=1, max_size=12)


@given(st.dictionaries(names, st.lists(entries, max_size=4), max_size=3))
def test_documents_round_trip(document):
    """What is written is read: bytes, states and numbers."""
    assert decode(LocalSecrets(json.loads(json.dumps(encode(document)))), "the file") == document
