"""The Logging query language: which filter matches which entries, and which filters are rejected."""

from __future__ import annotations

import contextlib

import pytest
from google.protobuf import json_format
from google.rpc import error_details_pb2
from hypothesis import example, given
from hypothesis import strategies as st

from cloudrun_jobs.emulator.logs.filters import MalformedFilter, compile_filter
from cloudrun_jobs.emulator.logs.store import Entry

RUN_LABELS = {"project_id": "acme", "location": "europe-west4", "job_name": "work"}
VIOLATION = error_details_pb2.QuotaFailure.Violation
QUOTA = error_details_pb2.QuotaFailure(
    violations=[VIOLATION(subject="user:ann", description="daily"), VIOLATION(subject="user:bob")]
)
ENTRIES = {
    "text": {
        "logName": "projects/acme/logs/run.googleapis.com%2Fstdout",
        "resource": {"type": "cloud_run_job", "labels": RUN_LABELS},
        "labels": {"run.googleapis.com/execution_name": "work-abcde", "env": "prod"},
        "severity": "INFO",
        "timestamp": "2026-03-01T12:00:00.500Z",
        "insertId": "text-1",
        "textPayload": 'Hello World, the Cat said "Ärger" C:\\dir',
    },
    "json": {
        "logName": "projects/acme/logs/run.googleapis.com%2Fstderr",
        "resource": {"type": "cloud_run_job", "labels": RUN_LABELS},
        "labels": {"run.googleapis.com/execution_name": "work-fghij"},
        "severity": "WARNING",
        "timestamp": "2026-03-01T12:00:01.250000001Z",
        "insertId": "json-1",
        "jsonPayload": {
            "message": "It is Done in 1200 ms",
            "rows": 3,
            "ratio": -0.5,
            "ok": True,
            "nothing": None,
            "digits": "10",
            "sizes": [8.5, 9, 6],
            "users": [{"name": "ann"}, {"name": "Bob"}],
            "ip": "10.1.2.3",
            "x.y": {"z": "dotted"},
            "camelCase": "kept",
            "AND": "keyword",
        },
    },
    "http": {
        "logName": "projects/acme/logs/requests",
        "resource": {"type": "cloud_run_revision", "labels": {"service_name": "web"}},
        "severity": "ERROR",
        "timestamp": "2026-03-02T00:00:00Z",
        "insertId": "http-1",
        "trace": "projects/acme/traces/abc",
        "httpRequest": {
            "requestMethod": "GET",
            "status": 404,
            "latency": "1.5s",
            "responseSize": "9007199254740993",
            "remoteIp": "2001:db8::1",
        },
    },
    "proto": {
        "logName": "projects/other/logs/cloudaudit.googleapis.com%2Factivity",
        "resource": {"type": "audited_resource"},
        "severity": "NOTICE",
        "timestamp": "2026-03-03T00:00:00Z",
        "insertId": "proto-1",
        "operation": {"id": "op-1", "first": True},
        "sourceLocation": {"file": "a.py", "line": "42"},
        "protoPayload": {
            "@type": "type.googleapis.com/google.rpc.QuotaFailure",
            **json_format.MessageToDict(QUOTA),
        },
    },
}
MESSAGES = {name: json_format.ParseDict(fields, Entry()) for name, fields in ENTRIES.items()}
ALL = "text json http proto"


def matching(text):
    matches = compile_filter(text)
    return " ".join(name for name, entry in MESSAGES.items() if matches(entry))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # Nothing to compare, and comments.
        ("", ALL),
        (" \n\t ", ALL),
        ("-- a comment", ALL),
        ("severity>=WARNING -- at least\nAND done", "json"),
        ('textPayload:"Hello" -- no end of line', "text"),
        # Junctions: OR binds closer than AND, which may be omitted; NOT binds closest.
        ("severity=INFO OR severity=ERROR", "text http"),
        ("severity=INFO AND severity=ERROR", ""),
        ("severity=INFO OR severity=ERROR AND insertId:http", "http"),
        ("insertId:http AND severity=INFO OR severity=ERROR", "http"),
        ("severity=INFO OR (severity=ERROR AND insertId:json)", "text"),
        ("severity=INFO OR severity=ERROR insertId:http", "http"),
        ('resource.type="cloud_run_job" labels.env=prod', "text"),
        (
            "resource.type = cloud_run_job \n AND resource.labels.job_name = work \n AND severity >= DEFAULT \n",
            "text json",
        ),
        ("NOT severity=INFO AND NOT severity=ERROR", "json proto"),
        ("NOT (severity=INFO OR severity=ERROR)", "json proto"),
        ("NOT(severity=INFO)", "json http proto"),
        ("-severity=INFO", "json http proto"),
        ("-(severity=INFO OR severity=ERROR)", "json proto"),
        ("severity=INFO OR NOT severity=ERROR AND NOT insertId:json OR severity=ERROR", "text proto"),
        ("NOT NOT severity=INFO", "text"),
        ("NOT -severity=INFO", "text"),
        ("(((severity=INFO)))", "text"),
        # Lists of values.
        ('severity=("INFO" OR "ERROR")', "text http"),
        ("severity=(INFO OR ERROR)", "text http"),
        ('textPayload:("hello" AND "cat")', "text"),
        ("textPayload:(hello dog)", ""),
        ("severity=(NOT INFO)", "json http proto"),
        ("severity=(-INFO -ERROR)", "json proto"),
        ("severity!=(INFO AND ERROR)", "json proto"),
        ("labels.env=(NOT prod)", "json http proto"),
        ('insertId=~("^text" OR "^json")', "text json"),
        # Severities and other enumerations: by name in any case, or by number.
        ("severity>=WARNING", "json http"),
        ('severity>="warning"', "json http"),
        ("severity>=400", "json http"),
        ("severity<NOTICE", "text"),
        ("severity!=INFO", "json http proto"),
        ("severity:error", "http"),
        # Texts, without regard to case.
        ("insertId=TEXT-1", "text"),
        ('textPayload:"hello world"', "text"),
        ("textPayload:ärger", "text"),
        ("textPayload:ÄRGER", "text"),
        ("insertId>=json-1", "text json proto"),
        ("textPayload=hello", ""),
        ('logName="projects/acme/logs/run.googleapis.com%2Fstdout"', "text"),
        ("logName:stdout", "text"),
        ("log_name:stdout", "text"),
        ("INSERTID=text-1", "text"),
        # Regular expressions of RE2, with regard to case.
        ('textPayload=~"World"', "text"),
        ('textPayload=~"world"', ""),
        ('textPayload=~"(?i)world"', "text"),
        ('insertId=~"^[a-z]{4}-\\d$"', "text json http"),
        ('textPayload=~"said \\"Ä"', "text"),
        ('jsonPayload.message=~"\\bDone\\b"', "json"),
        ('insertId!~"^text"', "json http proto"),
        ('jsonPayload.message!~"^Done"', "json"),
        ('jsonPayload.rows=~"3"', ""),
        # Quotes and escape sequences; a single quotation mark is a letter.
        (r'textPayload:"said \"ärger\""', "text"),
        (r'textPayload:"C:\\dir"', "text"),
        (r'textPayload:"\u0048ello\x20W\157rld"', "text"),
        ("insertId:'text-1'", ""),
        # Fields: missing, defaulted, and present.
        ("jsonPayload.absent=x", ""),
        ("jsonPayload.absent!=x", ""),
        ("NOT jsonPayload.absent=x", ALL),
        ("labels.absent!=x", ""),
        ("jsonPayload.absent.deeper:*", ""),
        ('httpRequest.requestMethod=""', "text json proto"),
        ("httpRequest.status<500", ALL),
        ("textPayload!=x", ALL),
        ("trace:*", "http"),
        ("httpRequest:*", "http"),
        ("httpRequest.status:*", "http"),
        ("httpRequest.cacheHit:*", ""),
        ("labels.env:*", "text"),
        ("labels:*", "text json"),
        ("textPayload:*", "text"),
        ("jsonPayload:*", "json"),
        ("jsonPayload.nothing:*", "json"),
        ("jsonPayload.sizes:*", "json"),
        ("operation.first:*", "proto"),
        ("operation.last:*", ""),
        ("metadata.systemLabels.name:*", ""),
        # Maps and JSON keep the case of their keys.
        ('labels."run.googleapis.com/execution_name"="work-abcde"', "text"),
        ('"labels"."env"="prod"', "text"),
        ("labels.ENV=prod", ""),
        ('jsonPayload."x.y".z=dotted', "json"),
        ("jsonPayload.camelCase=kept", "json"),
        ("jsonPayload.camel_case=kept", ""),
        ("jsonPayload.AND=keyword", "json"),
        ("jsonPayload:done", "json"),
        ("resource.labels:europe", "text json"),
        # Types in JSON.
        ("jsonPayload.rows=3", "json"),
        ('jsonPayload.rows="3.0"', "json"),
        ("jsonPayload.rows>2", "json"),
        ("jsonPayload.rows:3", "json"),
        ("jsonPayload.rows>=many", ""),
        ("jsonPayload.rows!=many", ""),
        ("jsonPayload.ratio=-0.5", "json"),
        ("jsonPayload.ratio<-4.9e-1", "json"),
        ("jsonPayload.digits>2", ""),
        ("jsonPayload.ok=TRUE", "json"),
        ("jsonPayload.ok!=false", "json"),
        ("jsonPayload.ok>false", "json"),
        ("jsonPayload.nothing=NULL_VALUE", "json"),
        ("NOT jsonPayload.nothing=NULL_VALUE", "text http proto"),
        ("jsonPayload.nothing=x", ""),
        # Any element of a list.
        ("jsonPayload.sizes<7", "json"),
        ("jsonPayload.sizes<7 AND jsonPayload.sizes>9", ""),
        ("jsonPayload.sizes=9", "json"),
        ("jsonPayload.users.name=bob", "json"),
        ('protoPayload.violations.subject="user:bob"', "proto"),
        # Messages, 64-bit numbers and durations.
        ('protoPayload."@type":QuotaFailure', "proto"),
        ("protoPayload.violations.DESCRIPTION=daily", "proto"),
        ("protoPayload.absent=x", ""),
        ("httpRequest.responseSize=9007199254740993", "http"),
        ("httpRequest.responseSize>9007199254740992", "http"),
        ('httpRequest.latency>="1500ms"', "http"),
        ("httpRequest.latency>2s", ""),
        ("sourceLocation.line=42", "proto"),
        ("operation.first=true", "proto"),
        # Times.
        ('timestamp>="2026-03-02T00:00:00Z"', "http proto"),
        ('timestamp>"2026-03-02"', "proto"),
        ("timestamp<2026-03-02", "text json"),
        ('timestamp="2026-03-01T13:00:00.5+01:00"', "text"),
        ('timestamp>"2026-03-01T12:00:01.25Z" timestamp<"2026-03-02"', "json"),
        ('timestamp>="2026-03-02T00:00:00.000000+0000"', "http proto"),
        # A value alone is in any field.
        ("done", "json"),
        ('"is done"', "json"),
        ("unicorn", ""),
        ("error", "http"),
        ("404", "http"),
        ('"user:bob"', "proto"),
        ('hello OR "op-1"', "text proto"),
        ("-work-abcde", "json http proto"),
        ("and", ""),
        # Functions, in any case.
        ('log_id("run.googleapis.com/stdout")', "text"),
        ('LOG_ID ("run.googleapis.com%2Fstdout")', "text"),
        ("source(projects/other)", "proto"),
        ("NOT source(projects/other)", "text json http"),
        ("sample(insertId, 1)", ALL),
        ("sample(jsonPayload.rows, 1)", "json"),
        ("sample(insertId, 0.000001)", ""),
        ('ip_in_net(jsonPayload.ip, "10.1.2.0/24")', "json"),
        ('ip_in_net(jsonPayload.ip, "10.1.3.0/24")', ""),
        ('ip_in_net(httpRequest.remoteIp, "2001:db8::/32")', "http"),
        ('SEARCH("world hello")', "text"),
        ('search("work-abcde hello")', "text"),
        ('SEARCH("hell")', ""),
        ('SEARCH(textPayload, "cat world")', "text"),
        ('SEARCH(textPayload, "work")', ""),
        ('SEARCH("`Hello world`")', "text"),
        ('SEARCH("`world hello`")', ""),
        ('SEARCH(jsonPayload, "bob")', "json"),
        ("cast(jsonPayload.digits, INT64)>2", "json"),
        ('cast(timestamp, STRING)=~"^2026-03-02T00.*Z$"', "http"),
        ('cast(timestamp, STRING, TIMEZONE("America/New_York"))=~"^2026-03-01T19.*-05:00$"', "http"),
        ('regexp_extract(jsonPayload.message, "(\\d+) ms")="1200"', "json"),
        ('CAST(REGEXP_EXTRACT(jsonPayload.message, "(\\\\d+) ms"), INT64) < 1500', "json"),
    ],
)
def test_filter_matches_entries(text, expected):
    """The filter matches exactly these entries."""
    assert matching(text) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("(", "syntax error at line 1, column 1, token ''"),
        ("insertId=", "syntax error at line 1, column 9, token ''"),
        ("insertId=b)", "syntax error at line 1, column 11, token ')'"),
        ("=x", "syntax error at line 1, column 1, token '='"),
        ("AND", "syntax error at line 1, column 1, token 'AND'"),
        ("insertId=abc:def", "syntax error at line 1, column 13, token ':'"),
        ("timestamp>=2026-09-24T00:00:00Z", "syntax error at line 1, column 25, token ':'"),
        ("insertId=x\nseverity>=", "syntax error at line 2, column 9, token ''"),
        ('insertId="open', "syntax error at line 1, column 10, token '\"'"),
        ("insertId=a OR AND", "syntax error at line 1, column 15, token 'AND'"),
        ("thud=x", "Field not found: 'thud'."),
        ("operation.thud=x", "Field not found: 'thud'."),
        ("textPayload.thud=x", "'textPayload' has no fields"),
        ("labels.run.googleapis.com/x=y", "Quote keys with dots."),
        ("severity>=LOUD", "expected a value of LogSeverity for 'severity', got 'LOUD'"),
        ("timestamp>yesterday", "expected a timestamp for 'timestamp', got 'yesterday'"),
        ("httpRequest.status=many", "expected a number for 'httpRequest.status', got 'many'"),
        ("httpRequest.latency=long", "expected a duration for 'httpRequest.latency', got 'long'"),
        ("traceSampled=maybe", "expected a boolean for 'traceSampled', got 'maybe'"),
        ("resource=x", "'=' does not apply to 'resource', which has fields of its own"),
        ('severity=~"ERR"', "'=~' applies only to text, which 'severity' is not"),
        ("insertId=(severity=INFO)", "expected a value of 'insertId', got a comparison of 'severity'"),
        ("insertId=~x", "regular expressions must begin and end with '\"', token 'x'"),
        ('insertId=~"("', "invalid regular expression '(': missing ): ("),
        ('insertId=~"(?=x)"', "invalid perl operator: (?="),
        ('insertId=~"(x)\\1"', "invalid escape sequence: \\1"),
        (f'insertId=~"{"a{1000}" * 60}"', "pattern too large - compile failed"),
        ('insertId="\\d"', "invalid escape sequence: \\d"),
        ("thud()", "unknown function 'thud'; expected one of cast, ip_in_net, log_id,"),
        ("insertId=thud(x)", "the function 'thud' is not supported as the value of 'insertId'"),
        ("cast(timestamp, STRING)", "expected a comparison of the value of 'cast'"),
        ('log_id("a")=x', "the function 'log_id' has no value that can be compared"),
        ("log_id()", "expected 1 arguments of 'log_id', got 0"),
        ("log_id(a=b)", "syntax error at line 1, column 9, token '='"),
        ("log_id((a OR b))", "expected a field or a value as an argument of 'log_id'"),
        ("sample(insertId, 2)", "expected a fraction greater than 0 and at most 1 in sample(), got '2'"),
        ('ip_in_net(jsonPayload.ip, "10.1")', "expected an IP address or range in ip_in_net(), got '10.1'"),
        ("source(acme)", "expected the name of a resource, such as source(projects/P), got 'acme'"),
        ('SEARCH("-")', "expected words to find in search()"),
        ("cast(timestamp, DATE)=x", "as the type in cast(), got 'DATE'"),
        ('cast(timestamp, STRING, TIMEZONE("Mars"))=x', "expected a time zone of the IANA database"),
        ("cast(timestamp, STRING, UTC)=x", 'expected TIMEZONE("…")'),
        ("cast(timestamp, BOOL, UTC)=x", "cast() to BOOL takes no options"),
        ("cast(resource, STRING)=x", "expected a field with a value in cast()"),
        ('regexp_extract(insertId, "x")=x', "expected one capture group in regexp_extract(), got 0"),
        ("regexp_extract(insertId, x)=x", "expected a regular expression in double quotes"),
        ("NOT " * 200 + "x", "the filter is nested more than 100 levels deep"),
        ("x" * 20_001, "Filter cannot be longer than 20000 characters."),
    ],
)
def test_filter_is_rejected(text, message):
    """The filter is rejected with this message."""
    with pytest.raises(MalformedFilter) as raised:
        compile_filter(text)

    assert message in str(raised.value)


@pytest.mark.parametrize(
    ("pattern", "matches"), [("^(a+)+$", False), ("(a*)*" * 800, True)], ids=["nested", "groups"]
)
def test_pattern_takes_linear_time(pattern, matches):
    """An expression that backtracking engines do not finish is matched at once; so is one of many groups."""
    entry = Entry(text_payload="a" * 5000 + "b")

    assert compile_filter(f'textPayload=~"{pattern}"')(entry) == matches


def quoted(text):
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


@given(st.text(), st.text(min_size=1))
def test_quoted_text_is_compared_as_it_is(text, key):
    """A text in quotes matches the same text, and a key in quotes is that key."""
    entry = Entry()
    entry.json_payload.update({key: text})

    assert compile_filter(f"jsonPayload.{quoted(key)}={quoted(text)}")(entry)


VALUES = st.sampled_from(["x", "y"])
LEAVES = st.tuples(st.just("is"), st.sampled_from(["a", "b"]), st.sampled_from(["=", "!=", ":"]), VALUES)
TREES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.tuples(st.just("not"), st.sampled_from(["NOT ", "-"]), inner),
        st.tuples(st.just("or"), st.just(" OR "), inner, inner),
        st.tuples(st.just("and"), st.sampled_from([" AND ", " ", "\n"]), inner, inner),
    ),
    max_leaves=8,
)
BINDING = {"and": 0, "or": 1, "not": 2, "is": 3}


def rendered(tree, minimum=0):
    """Write a tree with the parentheses that its precedence needs."""
    kind, word, *operands = tree
    if kind == "is":
        text = f"jsonPayload.{word}{operands[0]}{operands[1]}"
    elif kind == "not":
        text = word + rendered(operands[0], BINDING["is"])
    else:
        text = word.join(rendered(operand, BINDING[kind]) for operand in operands)
    return f"({text})" if BINDING[kind] < minimum else text


def interpreted(tree, fields):
    kind, word, *operands = tree
    if kind == "is":
        sign, value = operands
        return word in fields and (fields[word] == value) == (sign != "!=")
    results = [interpreted(operand, fields) for operand in operands]
    return {"not": not results[0], "or": any(results), "and": all(results)}[kind]


@given(TREES, st.dictionaries(st.sampled_from(["a", "b"]), VALUES))
@example(("or", " OR ", ("is", "a", "=", "x"), ("and", " AND ", ("is", "b", "=", "x"), ("is", "a", "=", "y"))), {})
def test_filter_means_what_its_tree_means(tree, fields):
    """A generated filter has the result of its tree: NOT, then OR, then AND."""
    entry = Entry()
    entry.json_payload.update(fields)

    assert compile_filter(rendered(tree))(entry) == interpreted(tree, fields)


WORDS = ["AND", "OR", "NOT", "10", "STRING", "severity", "timestamp", "jsonPayload.a", "labels", '"x"', '"\\']
CALLS = ["log_id(", "cast(", "SEARCH(", "sample(", "ip_in_net("]
TOKENS = st.sampled_from([*"-(),=:*. ", "!=", "=~", ">=", "--", *WORDS, *CALLS])


@given(st.one_of(st.text(max_size=25), st.lists(TOKENS, max_size=12).map(" ".join), st.lists(TOKENS).map("".join)))
def test_any_text_is_parsed_or_rejected(text):
    """The parser accepts or rejects any text; it never fails in another way."""
    with contextlib.suppress(MalformedFilter):
        matched = list(map(compile_filter(text), MESSAGES.values()))

        assert set(matched) <= {True, False}
