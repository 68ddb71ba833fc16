"""The YAML that is written, read again by a real parser."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from cloudrun_jobs.deploy.export.yaml import written
from cloudrun_jobs.deploy.plan import OwnershipLabel
from tests.deploy.export.conftest import ODD, Export

words = st.text(st.characters(codec="utf-8"), max_size=8) | st.sampled_from(
    ["no", "1e3", "null", "~", "-", "a: b"]
)
values = st.recursive(
    words | st.integers(0, 10_000),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=12,
)


@given(document=st.dictionaries(words, values, min_size=1, max_size=3))
def test_what_is_written_is_read(document: dict[str, Any]) -> None:
    """Whatever text is in it, and however it is nested."""
    assert yaml.safe_load(written(document)) == document


@pytest.mark.usefixtures("everything")
def test_a_document_for_each_job(export: Export) -> None:
    """They are sorted by name, and each says where it belongs and whose it is."""
    documents = list(
        yaml.safe_load_all(export("yaml", "--image", "app:1", commands=("--command", "walk", "echo")))
    )

    names = [document["metadata"]["name"] for document in documents]
    [region] = {document["metadata"]["labels"]["cloud.googleapis.com/location"] for document in documents}
    marks = [
        OwnershipLabel.read(document["metadata"]["annotations"]["cloudrun-jobs/managed"]) for document in documents
    ]
    assert (names, region) == (["echo-production", "walk-production"], "europe-west4")
    assert [mark.command for mark in marks if mark] == ["echo", "walk"]


@pytest.mark.usefixtures("everything")
def test_secrets_are_references(export: Export) -> None:
    """In v1 the secret is the name, and its version the key."""
    document = yaml.safe_load(export("yaml", "--image", "app:1"))

    [container] = document["spec"]["template"]["spec"]["template"]["spec"]["containers"]
    variables = {variable["name"]: variable for variable in container["env"]}
    assert variables["OLD"] == {"name": "OLD", "valueFrom": {"secretKeyRef": {"name": "partner-key", "key": "3"}}}
    assert variables["ODD"] == {"name": "ODD", "value": ODD}
