"""The REST frontend: what it reads, what it refuses in the sentences of Google's API frontend, and selections."""

from __future__ import annotations

import json
import re
from itertools import pairwise

import pytest
from google.cloud import run_v2, scheduler_v1
from google.cloud.logging_v2.types import WriteLogEntriesRequest
from hypothesis import given
from hypothesis import strategies as st

from cloudrun_jobs.emulator import Emulator, json_reader, messages
from cloudrun_jobs.emulator.errors import ServiceError
from cloudrun_jobs.emulator.frontends.rest import partial
from tests.emulator.cloud import PLACE
from tests.emulator.rest import Rest

JOBS = f"v2/{PLACE}/jobs"
TASK = {"containers": [{"image": "app", "command": ["/bin/true"]}], "maxRetries": 0}
CANNOT_BIND = "Cannot bind query parameter. Field 'x.y' could not be found in request message."
RUN = "type.googleapis.com/google.cloud.run.v2"
WELL_KNOWN = "type.googleapis.com/google.protobuf"


@pytest.fixture(scope="module")
def emulator():
    with Emulator(grace=1.0) as emulator:
        yield emulator


@pytest.fixture(scope="module")
def rest(emulator):
    """The emulator of the module over REST, with a job."""
    caller = Rest(emulator)
    caller("POST", f"{JOBS}?jobId=work", labels={"a": "1", "b": "2"}, template={"template": TASK})
    return caller


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"templat": {}}, "Invalid JSON payload received. Unknown name \"templat\" at 'job': Cannot find field."),
        (
            {"template": {"template": {"x": 1}}},
            "Invalid JSON payload received. Unknown name \"x\" at 'job.template.template': Cannot find field.",
        ),
        (
            {"template": {"template": {"containers": [{}, {"x": 1}]}}},
            (
                "Invalid JSON payload received. Unknown name \"x\" at 'job.template.template.containers[1]': "
                "Cannot find field."
            ),
        ),
        (
            {"template": [{}]},
            (
                "Invalid JSON payload received. Unknown name \"template\" at 'job': "
                "Proto field is not repeating, cannot start list."
            ),
        ),
        ({"template": 3}, f"Invalid value at 'job.template' ({RUN}.ExecutionTemplate), 3"),
        ({"template": {"parallelism": "x"}}, "Invalid value at 'job.template.parallelism' (TYPE_INT32), \"x\""),
        ({"template": {"parallelism": 1.5}}, "Invalid value at 'job.template.parallelism' (TYPE_INT32), 1.5"),
        ({"template": {"parallelism": True}}, "Invalid value at 'job.template.parallelism' (TYPE_INT32), true"),
        (
            {"template": {"taskCount": 2147483648}},
            "Invalid value at 'job.template.task_count' (TYPE_INT32), 2147483648",
        ),
        (
            {"template": {"parallelism": {}}},
            "Invalid value at 'job.template' (parallelism), Starting an object on a scalar field",
        ),
        ({"client": 5}, "Invalid value at 'job.client' (TYPE_STRING), 5"),
        ({"reconciling": "yes"}, "Invalid value at 'job.reconciling' (TYPE_BOOL), \"yes\""),
        (
            {"launchStage": "GAA"},
            "Invalid value at 'job.launch_stage' (type.googleapis.com/google.api.LaunchStage), \"GAA\"",
        ),
        ({"labels": {"a": 1}}, "Invalid value at 'job.labels[0].value' (TYPE_STRING), 1"),
        ({"labels": []}, f"Invalid value at 'job.labels' ({RUN}.Job.LabelsEntry), []"),
        (
            {"template": {"template": {"timeout": "5m"}}},
            (
                f"Invalid value at 'job.template.template.timeout' ({WELL_KNOWN}.Duration), "
                "Field 'timeout', Illegal duration format; duration must end with 's'"
            ),
        ),
        (
            {"createTime": "2026-01-01"},
            (
                f"Invalid value at 'job.create_time' ({WELL_KNOWN}.Timestamp), Field 'createTime', "
                "Illegal timestamp format; timestamps must end with 'Z' or have a valid timezone offset."
            ),
        ),
        (
            {"template": {"template": {"volumes": [{"gcs": {}, "nfs": {}}]}}},
            (
                "Invalid value at 'job.template.template.volumes[0]' (oneof), "
                "oneof field 'volume_type' is already set. Cannot set 'nfs'"
            ),
        ),
    ],
)
def test_wrong_json_is_refused_in_the_services_sentence(content, message):
    """A value that its field does not accept is refused with its path, its type and the value."""
    with pytest.raises(ServiceError) as error:
        messages.from_json(run_v2.Job, content, "job")

    violations = error.value.details[0]["fieldViolations"]

    assert error.value.message == message
    assert [violation["description"] for violation in violations] == [message]


def test_every_violation_is_reported():
    """An error has a line and a field violation for each wrong value."""
    with pytest.raises(ServiceError) as error:
        messages.from_json(run_v2.Job, {"x": 1, "client": 5})

    assert error.value.message.splitlines() == [
        'Invalid JSON payload received. Unknown name "x": Cannot find field.',
        "Invalid value at 'client' (TYPE_STRING), 5",
    ]
    assert error.value.details[0]["fieldViolations"][1]["field"] == "client"


def test_wrong_base64_is_refused():
    """Bytes that are not Base64 are refused; the URL-safe alphabet and missing padding are accepted."""
    target = messages.from_json(scheduler_v1.Job, {"httpTarget": {"body": "-_8"}}).http_target

    with pytest.raises(ServiceError) as error:
        messages.from_json(scheduler_v1.Job, {"httpTarget": {"body": "?"}})

    assert target.body == b"\xfb\xff"
    assert (
        error.value.message == "Invalid value at 'http_target.body' (TYPE_BYTES), Base64 decoding failed for \"?\""
    )


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ({"labels": {"a": None, "b": "c"}}, {"labels": {"b": "c"}}),
        ({"labels": None, "template": None}, {}),
        (
            {"template": {"template": {"containers": [None, {"image": "x"}]}}},
            {"template": {"template": {"containers": [{"image": "x"}]}}},
        ),
        ({"template": {"task_count": "3", "parallelism": 2.0}}, {"template": {"taskCount": 3, "parallelism": 2}}),
        ({"launchStage": 3}, {"launchStage": "BETA"}),
        ({"reconciling": "true"}, {"reconciling": True}),
        (
            {"template": {"template": {"containers": {"args": "x"}}}},
            {"template": {"template": {"containers": [{"args": ["x"]}]}}},
        ),
    ],
)
def test_json_is_read_as_the_service_reads_it(content, expected):
    """Null is the default, and drops a key of a map; names of the proto, numbers as text, single values count."""
    assert messages.to_json(messages.from_json(run_v2.Job, content)) == expected


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"{", "Expected an object key or }."),
        (b'{"a" 1}', "Expected : between key:value pair."),
        (b'{"a": 1 "b": 2}', "Expected , or } after key:value pair."),
        (b'{"a": ', "Unexpected end of string. Expected a value."),
        (b'{"a": x}', "Unexpected token."),
        (b'{"a": NaN}', "Unexpected token."),
        (b'{"a": "x', "Closing quote expected in string."),
        (b"{} {}", "Parsing terminated before end of input."),
        (b"\xff", "Encountered non UTF-8 code points."),
        (b'"\\ud800"', "Encountered non UTF-8 code points."),
        (b"[" * 200 + b"]" * 200, "Message too deep. Max recursion depth reached."),
        (b"[" * 100_000, "Message too deep. Max recursion depth reached."),
    ],
)
def test_malformed_json_is_refused_in_the_services_sentence(body, reason):
    """A syntax error is named, and shown with its place."""
    with pytest.raises(ServiceError) as error:
        json_reader.decode(body)

    assert error.value.message.startswith(f"Invalid JSON payload received. {reason}")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


def _like(descriptor, depth=3):
    """Return JSON that has the fields of a message, with right and wrong values."""
    names = [field.json_name for field in descriptor.fields]
    if not names or not depth:
        return JSON
    fields = {
        field.json_name: JSON if field.message_type is None else st.deferred(lambda f=field: _values(f, depth))
        for field in descriptor.fields
    }
    chosen = st.lists(st.sampled_from(names), max_size=4, unique=True)
    return chosen.flatmap(lambda some: st.fixed_dictionaries({name: fields[name] for name in some}))


def _values(field, depth):
    inner = _like(field.message_type, depth - 1)
    return st.one_of(inner, st.lists(inner, max_size=2), JSON)


MESSAGES = [
    run_v2.CreateJobRequest,
    run_v2.UpdateServiceRequest,
    scheduler_v1.CreateJobRequest,
    WriteLogEntriesRequest,
]
REQUESTS = st.sampled_from(MESSAGES).flatmap(
    lambda message: st.tuples(st.just(message), _like(messages.extended_class(message).DESCRIPTOR))
)


def _again(message_class, content):
    """Read JSON, write the message and read that again; return the two messages, or the error twice."""
    try:
        message = messages.from_json(message_class, content)
    except ServiceError as error:
        return error.message, error.message
    return message, messages.from_json(message_class, json.loads(json.dumps(messages.to_json(message))))


@given(REQUESTS)
def test_any_json_is_read_or_refused(pair):
    """Arbitrary JSON makes a message that its own JSON makes again, or an error with a sentence of the service."""
    message_class, content = pair
    first, second = _again(message_class, content if isinstance(content, dict) else {"x": content})

    assert first == second
    assert not isinstance(first, str) or first.startswith(("Invalid ", "Request contains an invalid argument."))


RESPONSE = {
    "name": "n",
    "labels": {"a": "1", "b": "2"},
    "template": {"taskCount": 3, "template": {"timeout": "5s", "containers": [{"image": "x", "args": ["y"]}]}},
}


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ("name", {"name": "n"}),
        ("name,uid", {"name": "n"}),
        ("labels/a", {"labels": {"a": "1"}}),
        ("labels", {"labels": RESPONSE["labels"]}),
        ("template.taskCount", {"template": {"taskCount": 3}}),
        ("template/task_count", {"template": {"taskCount": 3}}),
        ("template(taskCount),template", {"template": RESPONSE["template"]}),
        ("template,template(taskCount)", {"template": RESPONSE["template"]}),
        ("*/taskCount", {"labels": {}, "name": "n", "template": {"taskCount": 3}}),
        (
            "template/template(timeout,containers(image)),name",
            {"name": "n", "template": {"template": {"timeout": "5s", "containers": [{"image": "x"}]}}},
        ),
        ("*", RESPONSE),
    ],
)
def test_fields_selects_parts_of_a_response(fields, expected):
    """The parameter ``fields`` selects fields by their paths, with sub-selections and wildcards."""
    assert partial.select(RESPONSE, partial.parse(fields)) == expected


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ("colour", "colour"),
        ("template/colour", "template.colour"),
        ("name(x)", "name.x"),
        ("template(", "template("),
        ("template)", "template)"),
        (",", ","),
        ("a//b", "a//b"),
        ("a(" * 1500, "a(" * 1500),
        ("a/" * 1500, "a/" * 1500),
    ],
)
def test_wrong_fields_are_refused(rest, fields, path):
    """A selection of a missing field, or with a wrong syntax, is refused as on the service."""
    error = rest.error("GET", f"{JOBS}/work?fields={fields}")
    description = f"Error expanding 'fields' parameter. Cannot find matching fields for path '{path}'."

    assert error["message"] == "Request contains an invalid argument."
    assert error["details"][0]["fieldViolations"] == [{"field": fields, "description": description}]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("fields=labels/a", {"labels": {"a": "1"}}),
        ("$fields=labels(b)", {"labels": {"b": "2"}}),
        ("alt=json&key=k&prettyPrint=false&$.xgafv=2&quotaUser=q&fields=labels.a", {"labels": {"a": "1"}}),
        (
            "access_token=t&oauth_token=t&uploadType=media&upload_protocol=raw&fields=labels.a",
            {"labels": {"a": "1"}},
        ),
    ],
)
def test_parameters_of_every_method_are_accepted(rest, query, expected):
    """The common parameters of the APIs are accepted, and ``fields`` works over HTTP."""
    assert rest("GET", f"{JOBS}/work?{query}") == expected


def test_fields_of_a_list(rest):
    """A selection applies to each element of a list, and to the project's own APIs."""
    services = rest("GET", "v1/projects/acme/services?fields=services/name&filter=state:ENABLED")["services"]

    assert rest("GET", f"{JOBS}?fields=jobs(labels/b)") == {"jobs": [{"labels": {"b": "2"}}]}
    assert list(services[0]) == ["name"]


def test_revisions_of_a_worker_pool_are_not_found(rest):
    """Worker pools have no revisions here: a list is empty, and a single one is not found."""
    revisions = f"v2/{PLACE}/workerPools/pool/revisions"

    assert rest("GET", revisions) == {}
    assert rest.error("GET", f"{revisions}/pool-1")["status"] == "NOT_FOUND"


@pytest.mark.parametrize("query", ["alt=media", "alt=proto", "callback=f"])
def test_other_forms_of_a_response_are_refused(rest, query):
    """The emulator responds in JSON only; JSONP would let web pages read responses."""
    assert rest.error("GET", f"{JOBS}/work?{query}")["status"] == "INVALID_ARGUMENT"


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("pageSize=x", "Invalid value at 'page_size' (TYPE_INT32), \"x\""),
        ("pageSize=", "Invalid value at 'page_size' (TYPE_INT32), \"\""),
        ("showDeleted=yes", "Invalid value at 'show_deleted' (TYPE_BOOL), \"yes\""),
        ("x.y=1", f'Invalid JSON payload received. Unknown name "x.y": {CANNOT_BIND}'),
        ("pageSize=1&pageSize.x=1", None),
        ("pageSize=1&pageSize=2", None),
    ],
)
def test_wrong_query_is_refused(rest, query, message):
    """A parameter of the query that the method lacks, or of a wrong type, is refused."""
    error = rest.error("GET", f"{JOBS}?{query}")

    assert error["status"] == "INVALID_ARGUMENT"
    assert message in (None, error["message"])


IDS = {"projects": "acme", "locations": "europe-west4"}
UNEXPECTED = [
    {},
    {"name": 5},
    {"parent": [], "updateMask": {}, "x": None},
    {"job": 3, "role": [], "policy": 1, "service": "x", "secret": None, "payload": []},
    {
        "roleId": {},
        "accountId": [],
        "permissions": [1],
        "serviceIds": 5,
        "pageSize": "x",
        "pageToken": {},
        "filter": [],
    },
]


def _calls(emulator):
    """Yield the verb and the path of each REST method, with ids for its variables."""
    for method in emulator._service.methods.values():
        for route in method.routes:
            path = re.sub(r"\{[a-z_.]+=([^}]+)\}", lambda variable: _named(variable[1]), route.uri)
            yield route.verb.upper(), path.removeprefix("/")


def _named(pattern):
    parts = ["", *pattern.split("/")]
    named = (IDS.get(before, "other") if "*" in part else part for before, part in pairwise(parts))
    return "/".join(named)


def _python_error(rest, verb, path, body):
    """Return the call if its response is a failure of the emulator, or names things of Python."""
    response = rest.response(verb, path, **body)
    is_ours = response.status_code == 500 or (response.status_code >= 400 and "error" not in response.json())
    if is_ours or re.search(
        r"NoneType|Traceback|Message type|<class|dict|\bint\b|\bstr\b|KeyError", response.text
    ):
        return verb, path, body, response.text
    return None


def test_no_method_fails_on_unexpected_json(emulator, rest):
    """No REST method responds to unexpected JSON with 500, or with an error of Python."""
    calls = [(verb, path, body) for verb, path in _calls(emulator) for body in UNEXPECTED]
    found = [_python_error(rest, *call) for call in calls]

    assert [failure for failure in found if failure] == []
