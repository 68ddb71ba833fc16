"""Compare the messages of the emulator with Google's discovery documents, which google-api-python-client contains.

`make test-client CLIENT=discovery` runs them. TESTS_DISCOVERY_DOCUMENTS is the directory of the documents.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from google.cloud import run_v2

from cloudrun_jobs.emulator import messages
from cloudrun_jobs.emulator.added_fields import RUN_FIELDS
from cloudrun_jobs.emulator.frontends.knative import mapping
from cloudrun_jobs.emulator.frontends.knative.fields import Listing, Message
from tests.emulator.test_knative import TABLES

DOCUMENTS = os.environ.get("TESTS_DISCOVERY_DOCUMENTS", "")
pytestmark = pytest.mark.skipif(not DOCUMENTS, reason="TESTS_DISCOVERY_DOCUMENTS is not set: make test-clients")


def _schemas(name):
    return json.loads((Path(DOCUMENTS) / f"{name}.json").read_text())["schemas"]


def _messages_of(table):
    """Yield the messages of a table by name."""
    yield table.name, {row.name for row in table.fields}
    for row in table.fields:
        kind = row.kind.of if isinstance(row.kind, Listing) else row.kind
        if isinstance(kind, Message):
            yield from _messages_of(kind)


def _fields(schema):
    return set(schema.get("properties", {}))


def _camel_case(name):
    first, *rest = name.split("_")
    return first + "".join(map(str.capitalize, rest))


def _values(schemas, schema, field):
    """Return the values of a field with an enum in a document."""
    found = schemas[schema]["properties"][field]
    return found.get("items", found)["enum"]


def _reachable(descriptor, seen):
    if descriptor.full_name not in seen:
        seen[descriptor.full_name] = descriptor
        for field in descriptor.fields:
            if field.message_type is not None:
                _reachable(field.message_type, seen)
    return seen


def test_cloud_run_messages_have_all_fields_of_the_discovery_document():
    """Each message that a resource contains has the fields and the enum values of the REST API, and no others."""
    schemas, seen = _schemas("run.v2"), {}
    for message in (run_v2.Job, run_v2.Execution, run_v2.Task, run_v2.Service, run_v2.Revision, run_v2.WorkerPool):
        _reachable(messages.extended_class(message).DESCRIPTOR, seen)
    found = {f"GoogleCloudRunV2{name.removeprefix('google.cloud.run.v2.')}": each for name, each in seen.items()}
    missing = {
        (name, field)
        for name, message in found.items()
        if name in schemas
        for field in _fields(schemas[name]) - {field.json_name for field in message.fields}
    }
    unknown = {
        (name, field.json_name, value)
        for name, message in found.items()
        if name in schemas
        for field in message.fields
        if field.enum_type is not None
        for value in set(_values(schemas, name, field.json_name)) - set(field.enum_type.values_by_name)
    }

    assert missing == set()
    assert unknown == set()


def test_added_fields_are_in_the_discovery_document():
    """Every message and field of the table is in the REST API."""
    schemas = _schemas("run.v2")
    names = {"RunJobRequest.Overrides": "Overrides"}
    extra = {
        (name, field)
        for name, fields in RUN_FIELDS.items()
        for field in set(map(_camel_case, fields)) - _fields(schemas[f"GoogleCloudRunV2{names.get(name, name)}"])
    }

    assert extra == set()


@pytest.mark.parametrize("kind", [*TABLES, "RunJobRequest"])
def test_table_has_every_field_of_v1(kind):
    """The table has the fields of the discovery document, and no others."""
    schemas = _schemas("run.v1")
    tables = {**TABLES, "RunJobRequest": mapping.RUN_JOB_REQUEST}

    assert [
        (name, fields) for name, fields in _messages_of(tables[kind]) if fields != set(schemas[name]["properties"])
    ] == []
