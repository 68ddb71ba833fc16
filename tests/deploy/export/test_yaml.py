"""The YAML of an export."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from ruamel.yaml import YAML

from cloudrun_jobs.deploy.desired import DesiredJob
from cloudrun_jobs.deploy.export import Declarations, knative
from cloudrun_jobs.spec.ownership import OwnershipLabel
from tests.deploy.export.conftest import ODD, Export

TEXTS = st.text(st.characters(codec="utf-8"), max_size=8) | st.sampled_from(
    ["no", "y", "1e3", "null", "~", "-", "a: b"]
)
JOB = DesiredJob(
    id="echo",
    label="echo",
    ownership=OwnershipLabel(environment="test", command="echo"),
    image="app:1",
    entrypoint=(),
    args=(),
    timeout=timedelta(minutes=1),
    max_retries=0,
    tasks=1,
)


@given(args=st.lists(TEXTS))
def test_texts_round_trip(args: list[str]) -> None:
    """Parsers of YAML 1.1 and of 1.2 read every text as text."""
    job = replace(JOB, args=tuple(args))
    declarations = Declarations(project="p", region="r", scheduler_region="r", jobs=[job], schedules=[])
    document = knative.text(declarations)

    expected = knative.job(job, "r")
    assert yaml.safe_load(document) == expected
    assert YAML(typ="safe").load(document) == expected


@pytest.mark.usefixtures("everything")
def test_one_document_per_job(export: Export) -> None:
    """Documents are sorted by name, with the region and the ownership label."""
    documents = list(
        yaml.safe_load_all(export("yaml", "--image", "app:1", commands=("--command", "walk", "echo")))
    )

    names = [document["metadata"]["name"] for document in documents]
    [region] = {document["metadata"]["labels"]["cloud.googleapis.com/location"] for document in documents}
    labels = [
        OwnershipLabel.read(document["metadata"]["annotations"]["cloudrun-jobs/managed"]) for document in documents
    ]
    assert (names, region) == (["echo-production", "walk-production"], "europe-west4")
    assert [label.command for label in labels if label] == ["echo", "walk"]


@pytest.mark.usefixtures("everything")
def test_secrets_are_references(export: Export) -> None:
    """In API v1, `name` is the secret's name and `key` its version."""
    document = yaml.safe_load(export("yaml", "--image", "app:1"))

    [container] = document["spec"]["template"]["spec"]["template"]["spec"]["containers"]
    variables = {variable["name"]: variable for variable in container["env"]}
    assert variables["OLD"] == {"name": "OLD", "valueFrom": {"secretKeyRef": {"name": "partner-key", "key": "3"}}}
    assert variables["ODD"] == {"name": "ODD", "value": ODD}
