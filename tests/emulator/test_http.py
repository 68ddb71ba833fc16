"""The HTTP port: REST, the admin API, the console, logging, and rejected requests."""

from __future__ import annotations

import gzip
import json
import shutil
import socket
import subprocess

import pytest
import requests
from google.api_core import exceptions
from google.auth.credentials import AnonymousCredentials
from google.cloud import logging as cloud_logging
from google.cloud import scheduler_v1
from google.cloud.logging_v2.types import LogEntry

from tests.emulator.cloud import PLACE, eventually, job_of, script

JOBS = f"/v2/{PLACE}/jobs"
BODY = {"template": {"template": {"containers": [{"image": "app", "command": ["/bin/true"]}], "maxRetries": 0}}}


@pytest.fixture
def http(emulator):
    """A function that sends a request: verb, path and keyword arguments of requests."""
    with requests.Session() as session:
        yield lambda verb, path, **kw: session.request(verb, emulator.http + path, timeout=10, **kw)


def test_unknown_field_is_named(http):
    """The error about an unknown field names the field, as the service does."""
    response = http("POST", f"{JOBS}?jobId=work", json={"templat": {}})

    assert response.status_code == 400
    message = "Invalid JSON payload received. Unknown name \"templat\" at 'job': Cannot find field."
    assert response.json()["error"]["message"] == message
    assert response.json()["error"]["status"] == "INVALID_ARGUMENT"


@pytest.mark.parametrize(
    "body", [b"{", b"[]", b"\xff", b"[" * 100_000, b'{"template": 3}', b'{"template": null, "x": {}}']
)
def test_malformed_body_is_rejected(http, body):
    """A malformed body is rejected, and the port keeps responding."""
    assert http("POST", f"{JOBS}?jobId=work", data=body).status_code == 400
    assert http("GET", JOBS).json() == {}


def test_unknown_path_is_not_found(http):
    """A path without a method returns 404."""
    response = http("GET", "/v2/nothing")

    assert response.status_code == 404
    assert response.json()["error"]["status"] == "NOT_FOUND"


def test_query_boolean_is_parsed(http):
    """A boolean in the query is parsed: with ``validateOnly=true``, no job is created."""
    assert http("POST", f"{JOBS}?jobId=work&validateOnly=true", json=BODY).json()["done"] is True
    assert http("GET", JOBS).json() == {}


def test_enumerations_as_numbers(http):
    """Enumerations are returned as numbers on request."""
    http("POST", f"{JOBS}?jobId=work", json=BODY)
    names = http("GET", f"{JOBS}/work").json()
    numbers = http("GET", f"{JOBS}/work?$alt=json;enum-encoding=int").json()

    assert names["terminalCondition"]["state"] == "CONDITION_SUCCEEDED"
    assert numbers["terminalCondition"]["state"] == 4


@pytest.mark.parametrize("host", ["evil.example.com", "169.254.1.1", "127.0.0.1.example.com", "["])
def test_foreign_host_is_rejected(http, host):
    """A foreign Host header is rejected: by DNS rebinding, a web page could send one."""
    assert http("GET", JOBS, headers={"Host": host}).status_code in (400, 403)


def test_bug_has_a_response(emulator, http, monkeypatch, caplog):
    """An exception that no frontend expects is logged, and answered with INTERNAL."""
    monkeypatch.setattr(emulator.tokens, "principal", lambda _: 1 / 0)

    response = http("GET", JOBS)

    assert (response.status_code, response.json()["error"]["status"]) == (500, "INTERNAL")
    assert "ZeroDivisionError" in caplog.text


@pytest.mark.parametrize("origin", ["https://evil.example.com", "http://[", "null", ""])
def test_cross_origin_request_is_rejected(http, origin):
    """A cross-origin request is rejected and changes nothing."""
    response = http("POST", f"{JOBS}?jobId=work", json=BODY, headers={"Origin": origin})

    assert response.status_code == 403
    assert http("GET", JOBS).json() == {}


@pytest.mark.parametrize("host", ["localhost:1", "europe-west4-run.googleapis.com", "run.test", "[::1]:80"])
def test_known_host_is_accepted(http, host):
    """Hosts of this machine, of Google's APIs and reserved test names are accepted."""
    assert http("GET", JOBS, headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    ("request_head", "status"),
    [
        (b"POST /x HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n", b"400"),
        (b"POST /x HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabc\r\n0\r\n", b"400"),
        (b"POST /x HTTP/1.1\r\nHost: localhost\r\nContent-Length: x\r\n\r\n", b"400"),
        (b"POST /x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999\r\n\r\n", b"413"),
        (b"GET http://[/ HTTP/1.1\r\nHost: localhost\r\n\r\n", b"400"),
        (b"NONSENSE\r\n\r\n", b"400"),
    ],
)
def test_malformed_request_is_rejected(emulator, request_head, status):
    """A malformed HTTP request is rejected with the matching status."""
    address = ("127.0.0.1", int(emulator.http.rpartition(":")[2]))
    with socket.create_connection(address, timeout=10) as connection:
        connection.sendall(request_head)

        assert status in connection.recv(200)


def gzipped(text):
    return gzip.compress(text.encode())


@pytest.mark.parametrize(
    ("body", "encoding"),
    [
        (gzipped(json.dumps(BODY)), "gzip"),
        (gzipped(json.dumps(BODY)[:20]) + gzipped(json.dumps(BODY)[20:]), "GZIP"),
        (iter([json.dumps(BODY)[:20].encode(), json.dumps(BODY)[20:].encode()]), "identity"),
        (iter([gzipped(json.dumps(BODY))]), "gzip"),
    ],
    ids=["gzip", "gzip of two members", "chunked", "chunked gzip"],
)
def test_encoded_body_is_read(http, body, encoding):
    """Bodies may be compressed with gzip, and sent in chunks."""
    response = http("POST", f"{JOBS}?jobId=work", data=body, headers={"Content-Encoding": encoding})

    assert response.json()["metadata"]["name"] == f"{PLACE}/jobs/work"


@pytest.mark.parametrize(
    ("body", "encoding", "status", "message"),
    [
        (b"{}", "gzip", 400, "The body is not gzip"),
        (gzipped("{}")[:-4], "gzip", 400, "The body is not gzip"),
        (gzip.compress(bytes(65 * 2**20)), "gzip", 413, "longer than 67108864 bytes"),
        (b"{}", "br", 415, "expected the content encoding gzip, got 'br'"),
    ],
    ids=["text", "truncated", "bomb", "unknown"],
)
def test_wrong_encoding_is_rejected(http, body, encoding, status, message):
    """A body that is not of its encoding is rejected, and so is one that expands beyond the limit."""
    response = http("POST", f"{JOBS}?jobId=work", data=body, headers={"Content-Encoding": encoding})

    assert response.status_code == status
    assert message in response.json()["error"]["message"]


def test_idle_connections_do_not_block(emulator, http):
    """Idle connections and incomplete requests do not block other requests."""
    address = ("127.0.0.1", int(emulator.http.rpartition(":")[2]))
    idle = [socket.create_connection(address) for _ in range(30)]
    for connection in idle[:15]:
        connection.sendall(b"POST /v2 HTTP/1.1\r\nContent-Le")

    assert http("GET", JOBS).status_code == 200

    for connection in idle:
        connection.close()


def test_garbage_on_grpc_port_is_ignored(cloud):
    """Bytes that are not gRPC do not disturb gRPC clients."""
    host, port = cloud.emulator.grpc.split(":")
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(b"\x00" * 1000)

        assert cloud.create(script("exit 0")).name


def test_admin_api_controls_faults(http, cloud):
    """Faults can be planned, listed and cleared over HTTP."""
    fault = {"what": "fail", "method": "Jobs.GetJob", "code": "ABORTED", "times": None}
    http("POST", "/_emulator/faults", json=fault)

    assert http("GET", "/_emulator/faults").json() == [{"what": "fail", "method": "Jobs.GetJob", "times": None}]
    assert http("GET", f"{JOBS}/work").status_code == 409

    http("DELETE", "/_emulator/faults")

    assert http("GET", f"{JOBS}/work").status_code == 404


@pytest.mark.parametrize(
    ("endpoint", "body", "message"),
    [
        ("faults", {"what": "nonsense"}, "expected a fault among fail, "),
        ("faults", {}, "expected a text for what, got none"),
        ("faults", {"what": ["fail"]}, 'expected a text for what, got ["fail"]'),
        ("faults", {"what": "fail"}, "expected method for fail, got none"),
        ("faults", {"what": "fail", "method": "Jobs.Nonsense"}, "expected a method among "),
        ("faults", {"what": "exhaust", "method": 5}, "expected another type of method, got 5"),
        ("faults", {"what": "fail", "method": "*", "code": "NONSENSE"}, "expected a status code such as "),
        ("faults", {"what": "fail", "method": "*", "code": []}, "expected another type of code, got []"),
        ("faults", {"what": "fail", "method": "*", "times": "2"}, "expected another type of times, got '2'"),
        ("faults", {"what": "fail", "method": "*", "times": 0}, "expected 1 time or more, or no limit; got 0"),
        ("faults", {"what": "delay", "method": "*", "seconds": 1e30}, "expected 0 to 31622400 seconds, got 1e+30"),
        ("faults", {"what": "cold_start", "seconds": -1}, "expected 0 to 31622400 seconds, got -1"),
        ("faults", {"what": "cold_start", "secs": 1}, "expected seconds, times for cold_start, got secs"),
        ("faults", [], "expected a JSON object, got []"),
        ("faults", 5, "expected a JSON object, got 5"),
        ("clock", {}, "expected freeze, advance or scale"),
        ("clock", {"advance": -1}, "expected a duration of 0 or more, got -1.0 s: time does not go back"),
        ("clock", {"advance": 10**400}, "expected a number for advance, got 1000"),
        ("clock", {"advance": 1e17}, "expected an instant before 9000, got 1e+17 s from now"),
        ("clock", {"advance": "5"}, 'expected a number for advance, got "5"'),
        ("clock", {"scale": True}, "expected a number for scale, got true"),
        ("clock", {"scale": 1e12}, "expected a factor above 0 and of at most 1e+06"),
        ("clock", {"freeze": "noon"}, "expected true, or an instant such as 2026-03-01T12:00:00Z for freeze, got"),
        ("clock", {"freeze": 5}, "expected true, or an instant such as 2026-03-01T12:00:00Z for freeze, got 5"),
        ("clock", {"freeze": "9999-12-31T00:00:00Z"}, "expected an instant between 1970 and 9000"),
        ("prune", {"execution": {}}, "expected a text for execution, got {}"),
        ("maintain", {}, "expected a text for execution, got none"),
        ("maintain", {"execution": "x", "seconds": 1e12}, "expected 0 to 31622400 seconds, got 1"),
        ("images", {"image": None}, "expected a text for image, got null"),
        ("token", {"email": 5}, "expected a text for email, got 5"),
        ("token", {"email": "a@example.com", "audience": []}, "expected a text for audience, got []"),
    ],
)
def test_invalid_admin_request_is_rejected(http, endpoint, body, message):
    """An invalid request to the admin API returns 400 with the expected and the given value."""
    response = http("POST", f"/_emulator/{endpoint}", json=body)

    assert response.status_code == 400
    prefix = f"The request to /_emulator/{endpoint} is invalid: "
    assert response.json()["error"]["message"].startswith(prefix + message)


@pytest.mark.parametrize("body", [b"{", b"\xff", b"[" * 100_000, b'{"advance": NaN}', b'{"advance": Infinity}'])
def test_malformed_admin_request_is_rejected(http, body):
    """A body of the admin API that is not JSON is rejected, and so are numbers that JSON lacks."""
    assert http("POST", "/_emulator/clock", data=body).status_code == 400


def test_admin_api_names_missing_resources(http):
    """The admin API answers for a missing or misspelt execution as the service does."""
    assert http("POST", "/_emulator/prune", json={"execution": "nonsense"}).status_code == 400


def test_admin_api_controls_the_clock(http):
    """The clock can be frozen and advanced over HTTP."""
    http("POST", "/_emulator/clock", json={"freeze": "2026-03-01T12:00:00+00:00"})
    response = http("POST", "/_emulator/clock", json={"advance": 90}).json()

    assert response == {"now": "2026-03-01T12:01:30+00:00", "frozen": True}


def test_keys_are_discoverable(http, emulator):
    """The public keys are found by OpenID discovery."""
    found = http("GET", "/.well-known/openid-configuration").json()

    assert found["issuer"] == emulator.http
    assert requests.get(found["jwks_uri"], timeout=10).json()["keys"][0]["kty"] == "RSA"


def test_console_escapes_html(http, cloud):
    """The console shows jobs, executions, tasks and output, all escaped."""
    execution = cloud.finish(script("echo '<script>alert(1)</script>'", env={"X": "<b>"}))
    overview = http("GET", "/")
    detail = http("GET", f"/executions/{execution.name}")

    assert overview.headers["Content-Type"] == "text/html; charset=utf-8"
    assert f'href="/executions/{execution.name}"' in overview.text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in detail.text
    assert "&lt;b&gt;" in detail.text
    assert "<script" not in overview.text + detail.text


SECRET_VALUES = [
    "postgres://me:s3cret@host/db",
    "redis://:a/s3cret@host/0",
    "https://s3cret@example.com/x",
    "mysql://host/d?user=x&password=s3cret",
    "host=x password = s3cret",
    "AccountName=x;AccountKey=s3cret",
    '{"private_key": "s3cret"}',
    "-----BEGIN RSA PRIVATE KEY-----\ns3cret",
    "Bearer s3cret",
    "ya29.s3cret",
    "ghp_s3cret",
    "xoxb-s3cret",
    "sk-s3cret",
    "eyJhbGciOi.eyJzdWIi.s3cret",
    "https://hooks.slack.com/services/T0/B0/s3cret",
    "https://discord.com/api/webhooks/1/s3cret",
]


def test_console_masks_secrets(http, cloud):
    """The page of an execution shows its variables and run id, but no value that is or could be a secret."""
    env = {
        "COLOUR": "red",
        "PARTITION_KEY": "region",
        "AUTHOR": "me",
        "SITE": "https://example.com/a?b=c",
        "CLOUDRUN_JOBS_RUN_ID": "run-4711",
        "API_KEY": "s3cret",
        "AUTHORIZATION": "s3cret",
        **{f"V{number}": value for number, value in enumerate(SECRET_VALUES)},
    }
    execution = cloud.finish(script("exit 0", env=env))
    page = http("GET", f"/executions/{execution.name}").text

    assert "s3cret" not in page
    assert page.count("********") == 2 + len(SECRET_VALUES)
    assert "<dt>Run id</dt><dd><code>run-4711</code></dd>" in page
    assert [value for value in ("red", "region", "me", "https://example.com/a?b=c") if value not in page] == []


def press(http, emulator, action, name, **headers):
    """Send what a button of the console sends, and return the response."""
    sent = {"Origin": emulator.http, **headers}
    return http("POST", f"/actions/{action}", data={"name": name}, headers=sent, allow_redirects=False)


def test_console_starts_and_cancels(http, cloud, emulator):
    """The buttons start and cancel an execution, whose page refreshes itself until it is done."""
    job = cloud.create(script("sleep 60")).name
    page = press(http, emulator, "execute", job).headers["Location"]
    name = page.removeprefix("/executions/")
    while_running = http("GET", page).text
    cancelled = press(http, emulator, "cancel", name)
    cloud.outcome(name)
    again = press(http, emulator, "cancel", name)

    assert "<script" in while_running
    assert (cancelled.status_code, cancelled.headers["Location"]) == (303, page)
    assert again.status_code == 400
    assert "cannot be cancelled because it is not running" in again.text
    assert '<span class="cancelled">cancelled</span>' in http("GET", f"/jobs/{job}").text


def test_console_changes_schedules(http, emulator):
    """The buttons pause, resume and run a Scheduler job, whose times have their zone."""
    name = f"{PLACE}/jobs/nightly"
    target = {"uri": f"{emulator.http}/none", "http_method": "GET"}
    job = scheduler_v1.Job(name=name, schedule="0 3 * * *", time_zone="Asia/Tokyo", http_target=target)
    emulator.clients.scheduler.create_job(parent=PLACE, job=job)
    actions = ("pause", "pause", "resume", "run")
    answers = [press(http, emulator, action, name) for action in actions]

    assert [answer.status_code for answer in answers] == [303, 400, 303, 303]
    assert answers[-1].headers["Location"] == "/#schedules"
    assert "03:00:00 Asia/Tokyo" in http("GET", "/").text
    assert eventually(lambda: "NOT_FOUND" in http("GET", "/").text)


def test_console_shows_times_in_unknown_zones_in_utc(http, emulator):
    """The page shows the time of a Scheduler job in UTC if the system has no time zone of its name."""
    name, target = f"{PLACE}/jobs/nightly", {"uri": f"{emulator.http}/none", "http_method": "GET"}
    job = scheduler_v1.Job(name=name, schedule="0 3 * * *", time_zone="utc", http_target=target)
    emulator.clients.scheduler.create_job(parent=PLACE, job=job)

    assert "03:00:00 UTC" in http("GET", "/").text


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": None},
        {"Origin": "null"},
        {"Origin": "http://evil.example.com"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "none"},
    ],
)
def test_button_of_another_page_is_rejected(http, cloud, emulator, headers):
    """Only the console's own pages can start something: a button needs their origin."""
    job = cloud.create(script("exit 0")).name

    assert press(http, emulator, "execute", job, **headers).status_code == 403
    assert emulator.clients.jobs.get_job(name=job).execution_count == 0


@pytest.mark.parametrize("path", ["/", "/jobs/x", "/executions/x", "/oauth2/v3/certs"])
def test_page_is_only_read(http, path):
    """A page is read by GET, and by no other method."""
    assert http("POST", path).status_code == 405


@pytest.mark.parametrize("path", ["/jobs/x", "/executions/x", "/actions/run", "/actions/none"])
def test_missing_page_is_reported(http, path):
    """A missing page is an error of the matching status."""
    assert http("GET", path).status_code in (404, 405)


def test_links_lead_to_the_console(cloud, emulator):
    """The links of executions and tasks, in both APIs, lead to the emulator's console and show their output."""
    execution = cloud.finish(script('echo "output of <$CLOUD_RUN_TASK_INDEX>"', task_count=3))
    task = cloud.tasks(execution.name)[2]
    knative = f"{emulator.http}/apis/run.googleapis.com/v1/namespaces/acme"
    short, region = execution.name.rpartition("/")[2], {"Host": "europe-west4-run.googleapis.com"}
    found = [
        execution.log_uri,
        requests.get(f"{knative}/executions/{short}", headers=region, timeout=10).json()["status"]["logUri"],
        task.log_uri,
        requests.get(f"{knative}/tasks/{short}-task2", headers=region, timeout=10).json()["status"]["logUri"],
    ]

    assert [uri for uri in found if not uri.startswith(f"{emulator.http}/")] == []
    pages = [requests.get(uri, timeout=10) for uri in found]
    assert [page.status_code for page in pages] == [200] * 4
    shown = [[number for number in range(3) if f"output of &lt;{number}&gt;" in page.text] for page in pages]
    assert shown == [[0, 1, 2], [0, 1, 2], [2], [2]]


def test_no_resource_refers_to_google(cloud):
    """Neither an execution nor its job, tasks or operation contains a link to Google's console."""
    operation = cloud.start(script("exit 1", task_count=2))
    execution = cloud.outcome(operation.metadata.name)
    job = cloud.emulator.clients.jobs.get_job(name=job_of(execution))

    text = f"{operation.operation}{execution}{job}{cloud.tasks(execution.name)}"
    assert "console.cloud.google.com" not in text
    assert "cloud.google.com/" not in text


def test_console_of_missing_execution_is_not_found(http):
    """The console returns 404 for an execution that does not exist."""
    assert http("GET", "/executions/none").status_code == 404


def test_logging_client_over_http(cloud):
    """The handwritten Logging client, over HTTP, writes entries and lists those of an execution."""
    execution = cloud.finish(script("echo one; echo two >&2"))
    client = cloud_logging.Client(
        project="acme",
        credentials=AnonymousCredentials(),
        _use_grpc=False,
        client_options={"api_endpoint": cloud.emulator.http},
    )
    client.logger("own").log_text("three", severity="ERROR")
    log_filter = (
        f'labels."run.googleapis.com/execution_name"="{execution.name.rpartition("/")[2]}" AND logName:"stdout"'
    )

    assert [entry.payload for entry in client.list_entries(filter_=log_filter)] == ["one"]
    assert [entry.payload for entry in client.list_entries(filter_="severity>=ERROR")] == ["three"]

    client.close()


def test_logging_client_over_grpc(cloud):
    """The generated Logging client writes entries and lists them in order."""
    client = cloud.emulator.clients.logging
    entries = [LogEntry(text_payload=text, resource={"type": "global"}) for text in ("one", "two")]
    client.write_log_entries(log_name="projects/acme/logs/own", entries=entries)
    listed = client.list_log_entries(
        resource_names=["projects/acme"], filter="resource.type=global", order_by="timestamp desc"
    )

    assert [entry.text_payload for entry in listed] == ["two", "one"]
    with pytest.raises(exceptions.InvalidArgument, match="Unparseable filter"):
        client.list_log_entries(resource_names=["projects/acme"], filter="(")


@pytest.mark.skipif(shutil.which("chromium") is None, reason="chromium is not installed")
def test_console_in_a_browser(emulator, cloud):
    """A real browser renders the execution and its state."""
    execution = cloud.finish(script("exit 3"))
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--dump-dom"]
    done = subprocess.run(["chromium", *options, emulator.http], capture_output=True, text=True, timeout=60)

    assert execution.name.rpartition("/")[2] in done.stdout
    assert '<span class="failed">failed</span>' in done.stdout


def test_port_responds_after_start(http):
    """The port responds once the emulator has started."""
    assert eventually(lambda: http("GET", "/").status_code == 200)
