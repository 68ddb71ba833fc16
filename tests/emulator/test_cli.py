"""The command line, run as a process."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import grpc
import pytest
import requests
from google.cloud import run_v2

from cloudrun_jobs.emulator.clients import Clients
from cloudrun_jobs.emulator.config import DEFAULT_GRPC_PORT, Config, InvalidConfiguration
from tests.emulator.cloud import PLACE, eventually, script
from tests.emulator.test_processes import alive

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-m", "cloudrun_jobs.emulator", "--port", "0", "--json"]


@contextlib.contextmanager
def serving(*options, command=COMMAND, stderr=None, **environment):
    """Run an emulator as a process; yield the process and the addresses that it prints."""
    env = {**os.environ, **environment}
    with subprocess.Popen(
        [*command, *options], stdout=subprocess.PIPE, stderr=stderr, text=True, cwd=ROOT, env=env
    ) as process:
        try:
            yield process, json.loads(process.stdout.readline())
        finally:
            process.kill()


def start_task(address, tmp_path):
    """Start a task that ignores SIGTERM; return its process id."""
    clients = Clients(address)
    written = tmp_path / "pid"
    declared = script(f"trap '' TERM HUP INT; echo $$ > {written}; while :; do sleep 1; done")
    name = clients.jobs.create_job(parent=PLACE, job=declared, job_id="stubborn").result().name
    clients.jobs.run_job(name=name)
    pid = eventually(lambda: written.exists() and written.read_text().strip())
    clients.close()
    return int(pid)


def test_ready_line_names_serving_addresses():
    """The emulator prints one line of JSON with the addresses that it already serves, on free ports for 0."""
    with serving() as (_, addresses):
        assert set(addresses) == {"grpc", "http"}
        assert addresses["http"].startswith("http://127.0.0.1:")
        assert addresses["grpc"] != f"127.0.0.1:{DEFAULT_GRPC_PORT}"
        channel = grpc.insecure_channel(addresses["grpc"])
        grpc.channel_ready_future(channel).result(timeout=10)
        channel.close()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_stops_emulator_and_tasks(number, tmp_path):
    """SIGINT and SIGTERM stop the emulator with exit status 0 and kill every task."""
    with serving() as (process, addresses):
        pid = start_task(addresses["grpc"], tmp_path)
        process.send_signal(number)

        assert process.wait(timeout=20) == 0
        assert not alive(pid)


def test_sigkill_leaves_no_tasks(tmp_path):
    """After SIGKILL of the emulator, none of its tasks is left."""
    with serving() as (process, addresses):
        pid = start_task(addresses["grpc"], tmp_path)
        process.kill()
        eventually(lambda: not alive(pid))

    assert not alive(pid)


def test_used_port_is_reported():
    """A used HTTP port is reported in one line on stderr."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        command = [*COMMAND[:3], "--port", port, "--grpc-port", "0"]
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=60)

    assert done.returncode == 1
    assert done.stderr == f"cloudrun_emulator: port {port} is in use; choose another, or 0 for any free one\n"


def test_used_grpc_port_is_reported():
    """A used gRPC port is reported in one line on stderr."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        command = [*COMMAND[:3], "--port", "0", "--grpc-port", port]
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=60)

    assert done.returncode == 1
    assert done.stderr == f"cloudrun_emulator: port {port} is in use; choose another, or 0 for any free one\n"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--image", "app"], "expected --image NAME=DIR, got 'app'"),
        (["--image", "app=/nowhere"], "expected a directory for 'app', got '/nowhere'"),
        (["--no-entrypoint", "app"], "expected an image for no_entrypoint, one of no images, got 'app'"),
        (["--image", "a=.", "--no-entrypoint", "b"], "expected an image for no_entrypoint, one of a, got 'b'"),
        (["--grace", "-1"], "expected a grace of 0 s or more, got -1.0"),
        (["--state", "/dev/null"], "expected a directory for the state at '/dev/null'"),
        (["--disable-api", "run"], "expected an API such as run.googleapis.com, got 'run'"),
        (["--registry", "pyproject.toml"], "expected a readable JSON file at 'pyproject.toml'"),
        (
            ["--iam", "cloudrun_jobs/emulator/iam/roles.json"],
            "expected an IAM policy with bindings, got an object with ",
        ),
        (["--secrets", "/nowhere.json"], "expected a readable JSON file at '/nowhere.json'"),
    ],
)
def test_invalid_option_is_reported(options, message):
    """An invalid option is reported in one line that names the expected value."""
    done = subprocess.run([*COMMAND, *options], capture_output=True, text=True, cwd=ROOT, timeout=60)

    assert done.returncode == 1
    assert done.stderr.startswith(f"cloudrun_emulator: {message}")
    assert done.stderr.count("\n") == 1


def test_project_options(tmp_path):
    """--disable-api, --registry and --iam describe the project."""
    registry, iam = tmp_path / "registry.json", tmp_path / "iam.json"
    registry.write_text('["europe-west4-docker.pkg.dev/acme/images/app:1"]')
    iam.write_text('{"bindings": [{"role": "roles/owner", "members": ["user:a@example.com"]}]}')
    options = ("--disable-api", "run.googleapis.com", "--registry", str(registry), "--iam", str(iam))
    with serving(*options) as (_, addresses):
        http = addresses["http"]
        token = requests.post(f"{http}/_emulator/token", json={"email": "a@example.com"}, timeout=10).json()
        headers = {"Authorization": f"Bearer {token['access_token']}"}
        repositories = requests.get(f"{http}/v1/{PLACE}/repositories", headers=headers, timeout=10).json()
        jobs = requests.get(f"{http}/v2/{PLACE}/jobs", headers=headers, timeout=10)

        assert [each["name"] for each in repositories["repositories"]] == [f"{PLACE}/repositories/images"]
        assert "has not been used in project acme" in jobs.json()["error"]["message"]
        assert requests.get(f"{http}/v2/{PLACE}/jobs", timeout=10).status_code == 401


def test_runs_without_django():
    """The emulator starts where Django cannot be imported."""
    block = (
        "import sys; sys.modules['django'] = None; from cloudrun_jobs.emulator.cli import main; sys.exit(main())"
    )
    command = [sys.executable, "-c", block, *COMMAND[3:]]
    with serving(command=command) as (_, addresses):
        clients = Clients(addresses["grpc"])

        assert list(clients.jobs.list_jobs(parent=PLACE)) == []

        clients.close()


@pytest.mark.parametrize("module", ["werkzeug", "re2"])
@pytest.mark.parametrize("command", ["cloudrun_jobs.emulator.cli.main([])", "CALL('cloudrun_emulator')"])
def test_missing_extra_is_reported(module, command):
    """Without a library of the extra, the command is one line that names what to install, and its status is 1."""
    block = (
        f"import sys; sys.modules['{module}'] = None; import django, cloudrun_jobs.emulator.cli; django.setup(); "
    )
    block += "from django.core.management import call_command as CALL; "
    done = subprocess.run(
        [sys.executable, "-c", f"{block} sys.exit({command})"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=60,
        env={**os.environ, "DJANGO_SETTINGS_MODULE": "tests.settings"},
    )

    assert done.returncode == 1
    hint = 'install the extra: pip install "django-cloudrun-jobs[emulator]"'
    assert done.stderr == f"cloudrun_emulator: the emulator requires {module}; {hint}\n"


def test_management_command_serves_emulator():
    """``manage.py cloudrun_emulator`` serves the same emulator."""
    command = [sys.executable, "-m", "django", "cloudrun_emulator", *COMMAND[3:]]
    with serving(command=command, DJANGO_SETTINGS_MODULE="tests.settings") as (process, addresses):
        clients = Clients(addresses["grpc"])
        with pytest.raises(Exception, match="does not exist"):
            clients.jobs.get_job(run_v2.GetJobRequest(name=f"{PLACE}/jobs/none"))
        clients.close()
        process.send_signal(signal.SIGINT)

        assert process.wait(timeout=20) == 0


@pytest.mark.parametrize("name", ["no_entrypoint", "pass_env", "allow_hosts", "disabled_apis", "registry"])
def test_text_in_place_of_a_list_is_rejected(name):
    """An option that takes several texts rejects a single one, which is a sequence of letters too."""
    with pytest.raises(InvalidConfiguration, match=f"expected a list of texts for {name}, got 'app'"):
        Config(**{name: "app"})


def test_paths_may_be_texts(tmp_path):
    """Every path among the options may be given as text."""
    config = Config(directory=str(tmp_path), images={"app": str(tmp_path)}, state=str(tmp_path / "state"))

    assert (config.directory, config.images, config.state) == (tmp_path, {"app": tmp_path}, tmp_path / "state")


def test_text_that_is_no_directory_is_rejected():
    """A path that is given as text is checked like any other."""
    with pytest.raises(InvalidConfiguration, match="expected a directory for 'app', got '/nowhere'"):
        Config(images={"app": "/nowhere"})
