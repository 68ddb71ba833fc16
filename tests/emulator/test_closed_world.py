"""What tasks can reach and which credentials they find: nothing outside, and none."""

from __future__ import annotations

import argparse
import contextlib
import http.server
import json
import socket
import sys
import threading
from pathlib import Path

import grpc
import pytest
from google.cloud import run_v2
from google.cloud.run_v2.services.jobs.transports import JobsGrpcTransport
from hypothesis import given
from hypothesis import strategies as st

from cloudrun_jobs.emulator import Emulator, closed_world
from cloudrun_jobs.emulator.cli import add_arguments
from cloudrun_jobs.emulator.clients import Clients
from cloudrun_jobs.emulator.config import Config, InvalidConfiguration
from cloudrun_jobs.emulator.engine.attempts import Container
from tests.emulator.cloud import PLACE, Cloud, eventually, job, script
from tests.emulator.test_cli import serving

PROBES = str(Path(__file__).with_name("probes.py"))
LOOPBACK = {"127.0.0.1", "localhost", "::1"}
CREDENTIALS = {"type": "authorized_user", "client_id": "id", "client_secret": "s3cret", "refresh_token": "s3cret"}
MAX_SECONDS = 5.0


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A machine that is logged in to Google in every way."""
    key = tmp_path / "home" / ".config" / "gcloud" / "application_default_credentials.json"
    key.parent.mkdir(parents=True)
    key.write_text(json.dumps(CREDENTIALS))
    (tmp_path / "home" / ".netrc").write_text("machine run.googleapis.com login me password s3cret")
    hostile = {
        "HOME": str(tmp_path / "home"),
        "CLOUDSDK_CONFIG": str(key.parent),
        "GOOGLE_APPLICATION_CREDENTIALS": str(key),
        "CLOUDSDK_AUTH_ACCESS_TOKEN": "s3cret",
        "no_proxy": "*",
        "NO_PROXY": "googleapis.com",
        "no_grpc_proxy": "googleapis.com",
        "https_proxy": "",
        "grpc_proxy": "http://127.0.0.1:9",
        "HTTPS_PROXY": "http://127.0.0.1:9",
        "ALL_PROXY": "http://127.0.0.1:9",
        "GCE_METADATA_HOST": "metadata.google.internal",
        "NO_GCE_CHECK": "false",
        "CLOUDRUN_EMULATOR_HOST": "run.googleapis.com:443",
    }
    for name, value in hostile.items():
        monkeypatch.setenv(name, value)
    return hostile


@pytest.mark.parametrize("declared_by", ["machine", "job", "execution"])
def test_tasks_reach_nothing_outside(machine, cloud, tmp_path, declared_by):
    """Every way to call Google fails fast and says why, whatever the machine, the job or an override declares."""
    env = {"REPORT": str(tmp_path / "report.json")}
    given = machine if declared_by == "execution" else {}
    declared = job(sys.executable, PROBES, env=env | (machine if declared_by == "job" else {}))
    override = {"env": [{"name": name, "value": value} for name, value in given.items()]}
    execution = cloud.finish(declared, container_overrides=[override])

    assert execution.succeeded_count == 1, cloud.output("stderr")
    report = json.loads((tmp_path / "report.json").read_text())
    assert set(report["names"]) <= LOOPBACK
    assert {name: found for name, found in report["outcomes"].items() if "error" not in found} == {}
    slow = {name: found for name, found in report["outcomes"].items() if found["seconds"] > MAX_SECONDS}
    assert slow == {}
    unexplained = {
        name: found["error"]
        for name, found in report["outcomes"].items()
        if not ("emulator" in found["error"] or "HTTP proxy returned response code 403" in found["error"])
    }
    assert unexplained == {}
    assert not any("s3cret" in value for value in report["env"].values())
    assert {name: value for name, value in machine.items() if report["env"].get(name) == value} == {}


def test_task_can_call_the_emulator(cloud, tmp_path):
    """A task reaches the emulator at ``CLOUDRUN_EMULATOR_HOST``, and servers on this machine over HTTP."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    code = f"""
import os, urllib.request, requests
from cloudrun_jobs.emulator.clients import Clients
jobs = Clients(os.environ["CLOUDRUN_EMULATOR_HOST"]).jobs.list_jobs(parent={PLACE!r})
print([job.name for job in jobs])
for host in ("127.0.0.1", "localhost"):
    print(urllib.request.urlopen(f"http://{{host}}:{server.server_port}/").status)
    print(requests.get(f"http://{{host}}:{server.server_port}/").status_code)
"""
    execution = cloud.finish(job(sys.executable, "-c", code))
    server.shutdown()
    server.server_close()

    assert execution.succeeded_count == 1, cloud.output("stderr")
    assert cloud.output() == [f"['{PLACE}/jobs/work']", *["200"] * 4]


def test_home_is_empty_and_not_shared(cloud):
    """Each attempt has an empty home directory, which is removed at its end if it has changed."""
    text = 'ls -A "$HOME" | wc -l; touch "$HOME/left"; echo "$HOME"; exit 1'
    cloud.finish(script(text, task_count=2, retries=1))

    lines = [line.strip() for line in cloud.output()]
    homes = {Path(line) for line in lines if line.startswith("/")}
    assert len(homes) >= 2
    assert lines.count("0") == 4
    assert [home for home in homes if home.exists()] == []


CHANGES = [
    "touch $HOME/left",
    "touch $CLOUDSDK_CONFIG/left",
    "touch $HOME/../left",
    "rmdir $HOME",
    "chmod 700 $HOME",
    "mv $HOME $HOME-old; ln -s / $HOME",
    "rm $CLOUDSDK_CONFIG/*",
    "sed -i s/none/some/ $CLOUDSDK_CONFIG/*",
    "chmod 600 $CLOUDSDK_CONFIG/*",
    "rm -r $(dirname $HOME)",
    "true",
]


def test_changed_files_do_not_reach_the_next_attempt(cloud):
    """Whatever a task changes in its directory, the next task finds the files as they were."""
    cases = "".join(f"{index}) {change} ;; " for index, change in enumerate(CHANGES))
    state = "cd $HOME/.. && stat -c '%n %f' * */* $HOME && cat */*.json && echo"
    text = f"echo $({state}); case $CLOUD_RUN_TASK_INDEX in {cases} esac"
    cloud.finish(script(text, task_count=len(CHANGES), parallelism=1))

    output = cloud.output()
    assert output == [output[0]] * len(CHANGES)
    assert "gcloud/application_default_credentials.json" in output[0]


@pytest.mark.parametrize("ending", ["terminate", "kill"])
def test_homes_do_not_outlive_the_emulator(ending, tmp_path):
    """The files of running tasks are removed however the emulator ends."""
    written = tmp_path / "home"
    with serving(TMPDIR=str(tmp_path)) as (process, addresses):
        clients = Clients(addresses["grpc"]).jobs
        declared = script(f"trap '' TERM; echo $HOME > {written}; while :; do sleep 1; done")
        clients.run_job(name=clients.create_job(parent=PLACE, job=declared, job_id="work").result().name)
        home = Path(eventually(lambda: written.exists() and written.read_text().strip()))
        assert home.is_dir()
        getattr(process, ending)()
        eventually(lambda: not home.parents[1].exists())

    assert list(tmp_path.glob("cloudrun-emulator-*")) == []


def test_replaced_variables_are_logged(cloud):
    """The log of a task names the declared variables that it does not get."""
    cloud.finish(script("exit 0", env={"GOOGLE_APPLICATION_CREDENTIALS": "/key.json", "GREETING": "hello"}))

    warnings = [line for line in cloud.output("varlog%2Fsystem") if "replaced" in line]
    assert [line for line in warnings if "GREETING" in line] == []
    assert ["GOOGLE_APPLICATION_CREDENTIALS" in line for line in warnings] == [True]


OTHER_NAMES = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,12}", fullmatch=True)
CLOSED = st.sampled_from([*sorted(closed_world.CLOSED_NAMES), "GOOGLE_APPLICATION_CREDENTIALS", "BOTO_CONFIG"])


@given(st.dictionaries(OTHER_NAMES | CLOSED | CLOSED.map(str.upper), st.text(max_size=8), max_size=12))
def test_no_declared_variable_opens_the_world(declared):
    """The variables of the closed world take precedence over any others, which a task gets unchanged."""
    container = run_v2.Container(image="app", env=[run_v2.EnvVar(name=k, value=v) for k, v in declared.items()])
    execution = run_v2.Execution(name=f"{PLACE}/jobs/echo/executions/echo-a", template={"containers": [container]})
    files = closed_world.TaskDirectory("/files")
    closed = closed_world.variables(closed_world.Addresses("127.0.0.1:1", "http://127.0.0.1:2"), ())

    env = Container.of(execution, Config(), closed).environment(0, 0, files, lambda variable: variable.value)

    closed |= files.variables
    assert {name: env[name] for name in closed} == closed
    assert not any(closed_world.REMOVED.fullmatch(name) for name in env if name not in closed)
    kept = {name: value for name, value in declared.items() if not closed_world.is_closed(name)}
    assert {name: env[name] for name in kept} == kept


@pytest.mark.parametrize(
    "name", ["HOME", "GOOGLE_APPLICATION_CREDENTIALS", "https_proxy", "CLOUDSDK_AUTH_ACCESS_TOKEN"]
)
def test_closed_variables_cannot_be_passed(name):
    """`pass_env` cannot pass a variable that would open the closed world."""
    with pytest.raises(InvalidConfiguration, match=name):
        Config(pass_env=("DATABASE_URL", name))


@pytest.mark.parametrize(
    "host", ["", "*", ".", "com", "run.googleapis.com", ".googleapis.com", "apis.com", "google.com",
             "metadata.google.internal", "internal", "a,b", "169.254.169.254", "0.0.0.0/0"]
)  # fmt: skip
def test_google_cannot_be_allowed(host):
    """`allow_hosts` takes no name that matches one of Google's, and no pattern."""
    with pytest.raises(InvalidConfiguration, match="host"):
        Config(allow_hosts=(host,))


def test_allowed_hosts_bypass_the_proxy():
    """HTTP clients of tasks call an allowed host directly."""
    with Emulator(allow_hosts=("api.example.com", "10.1.2.3")) as emulator:
        cloud = Cloud(emulator)
        code = "import requests; print(*map(requests.utils.should_bypass_proxies, {!r}, [None] * 4))"
        urls = [
            "https://api.example.com/",
            "http://10.1.2.3/",
            "https://example.com/",
            "https://run.googleapis.com/",
        ]
        cloud.finish(job(sys.executable, "-c", code.format(urls)))

        assert cloud.output() == ["True True False False"]


def test_grpc_call_on_the_http_port_is_served(emulator, cloud):
    """The HTTP port serves gRPC as the gRPC port does."""
    name = cloud.create(script("exit 0")).name
    channel = grpc.insecure_channel(emulator.http.removeprefix("http://"))
    with contextlib.closing(channel):
        client = run_v2.JobsClient(transport=JobsGrpcTransport(channel=channel))

        assert client.get_job(name=name).name == name


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", "200"),
        (b"GET /v2/projects/acme/locations/r/jobs HTTP/1.0\r\n\r\n", "403"),
        (b"POST /v2/x:run HTTP/1.1\r\nHost: localhost\r\nContent-Length: 300000\r\n\r\n" + b"x" * 300_000, "404"),
        (b"CONNECT run.googleapis.com:443 HTTP/1.1\r\n\r\n", "403"),
    ],
)
def test_http_request_on_the_grpc_port_is_served(emulator, request_bytes, status):
    """The gRPC port answers HTTP requests as the HTTP port does, also to a client that has closed its side."""
    host, _, port = emulator.grpc.partition(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(request_bytes)
        connection.shutdown(socket.SHUT_WR)
        response = b"".join(iter(lambda: connection.recv(65536), b"")).decode()

    assert response.startswith(f"HTTP/1.1 {status} ")


@pytest.mark.parametrize("first", [b"", b"P", b"PRI", b"\x16\x03\x01\x02\x00", b"GET", bytes(1000)])
def test_ports_survive_other_protocols(emulator, cloud, first):
    """Bytes of another protocol, and clients that leave, do not disturb the other clients."""
    for address in (emulator.grpc, emulator.http.removeprefix("http://")):
        host, _, port = address.partition(":")
        with socket.create_connection((host, int(port)), timeout=10) as connection:
            connection.sendall(first)

    assert cloud.finish(script("exit 0")).succeeded_count == 1


def test_large_messages_pass_the_grpc_port(cloud):
    """Messages of megabytes pass the gRPC port in both directions."""
    declared = script("exit 0", env={f"V{number}": "x" * 30_000 for number in range(60)})
    created = cloud.create(declared)

    assert sum(len(variable.value) for variable in created.template.template.containers[0].env) == 1_800_000


def test_default_ports_belong_to_no_other_emulator():
    """The default ports are not those of Google's, Firebase's and other projects' emulators."""
    others = {4000, 4400, 4443, 4500, 5000, 5001, 8000, 8080, 8081, 8085, 8086, 8123, 8432, 9000, 9005, 9010, 9020,
              9023, 9050, 9060, 9099, 9150, 9199, 9299, 9399, 9499}  # fmt: skip

    parser = argparse.ArgumentParser()
    add_arguments(parser)
    options = parser.parse_args([])
    assert others.isdisjoint({options.port, options.grpc_port})
    assert options.port != options.grpc_port


def test_missing_disk_fails_the_attempt(cloud, monkeypatch):
    """If the files of an attempt cannot be written, the attempt fails and the emulator goes on."""
    with monkeypatch.context() as broken:
        broken.setattr(closed_world.TaskDirectory, "content", {"/proc/none/file": "text"})
        execution = cloud.finish(script("exit 0"))

    assert execution.failed_count == 1
    assert any("Application failed to start" in line for line in cloud.output("varlog%2Fsystem"))
    assert cloud.finish(script("exit 0"), "other").succeeded_count == 1
