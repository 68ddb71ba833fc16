"""DockerfileServer, really built, and run as Cloud Run would: no engine and no registry, but buildah and runc.

Every container has a read-only root file system, no capability and the memory of Cloud Run's smallest.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
import yaml
from redis import Redis

from tests.containers.web import answers, free_port, get
from tests.servers import redis
from tests.servers.process import Server
from tests.waiting import wait_for

pytestmark = pytest.mark.containers

ROOT = Path(__file__).parents[2]
PROJECT = Path(__file__).parent / "project"
IMAGE = "localhost/cloudrun-jobs-example:test"
STRICT = [
    *("--read-only", "--cap-drop", "all", "--security-opt", "no-new-privileges", "--memory", "512m"),
    # A container's usual limits are higher than what a root without CAP_SYS_RESOURCE may set.
    *("--ulimit", "nofile=1024:1024", "--ulimit", "nproc=4096:4096"),
]
CLOUD = [
    *("-e", "CLOUDRUN_JOBS_ENVIRONMENT=production", "-e", "CLOUDRUN_JOBS_PROJECT=acme"),
    *("-e", "CLOUDRUN_JOBS_REGION=europe-west4", "-e", "EXAMPLE_SECRET_KEY=only for tests"),
]

Run = Callable[..., subprocess.CompletedProcess[str]]
Start = Callable[..., tuple[subprocess.Popen[str], str]]


@pytest.fixture(scope="session")
def store() -> Path:
    """The directory of the image store, with the base image in it."""
    path = Path(os.environ.get("CONTAINERS_STORE", "/var/tmp/cloudrun-jobs-containers"))
    subprocess.run([Path(__file__).with_name("prepare.sh"), path], check=True)
    return path


@pytest.fixture(scope="session")
def in_store(store: Path) -> list[str]:
    """Options that keep buildah and podman in our store, away from the images that the machine has."""
    return ["--root", f"{store}/images", "--runroot", f"{store}/run", "--storage-driver", "overlay"]


@pytest.fixture(scope="session")
def podman(store: Path, in_store: list[str], tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The beginning of a podman command, with the image built."""
    log = tmp_path_factory.mktemp("build") / "log"
    with log.open("w") as output:
        built = subprocess.run(
            [
                *("buildah", *in_store, "bud", "--layers", "--isolation", "chroot", "--pull-never"),
                *("--signature-policy", f"{store}/policy.json", *_as_this_machine_downloads()),
                *("-f", "DockerfileServer", "-t", IMAGE, "."),
            ],
            cwd=ROOT,
            stdout=output,
            stderr=subprocess.STDOUT,
            check=False,
        )

    assert built.returncode == 0, log.read_text()
    return ["podman", *in_store, "--cgroup-manager", "cgroupfs", "--runtime", "runc"]


def _as_this_machine_downloads() -> list[str]:
    """Mount this machine's certificates and pip's settings while building: neither stays in the image."""
    certificates = "/etc/ssl/certs/ca-certificates.crt"
    mounts = {os.environ.get("SSL_CERT_FILE", certificates): certificates, "/etc/pip.conf": "/etc/pip.conf"}
    return [f"--volume={here}:{there}:ro" for here, there in mounts.items() if Path(here).is_file()]


@pytest.fixture
def run(podman: list[str]) -> Run:
    """Run a container to its end."""

    def run(*arguments: str, options: list[str]) -> subprocess.CompletedProcess[str]:
        command = [*podman, "run", "--rm", "--network", "none", *STRICT, *options, IMAGE, *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)

    return run


@pytest.fixture
def start(podman: list[str]) -> Iterator[Start]:
    """Start a container; remove at the end what a failed test left."""
    started: list[tuple[subprocess.Popen[str], str]] = []

    def start(*arguments: str, options: list[str]) -> tuple[subprocess.Popen[str], str]:
        name = f"test-{secrets.token_hex(4)}"
        command = [*podman, "run", "--rm", "--name", name, *STRICT, *options, IMAGE, *arguments]
        container = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        started.append((container, name))
        return started[-1]

    yield start
    for container, name in started:
        subprocess.run(
            [*podman, "rm", "--force", "--ignore", "--time", "0", name], check=True, capture_output=True
        )
        container.communicate(timeout=30)


@pytest.fixture
def stop(podman: list[str]) -> Callable[[str], None]:
    """Send SIGTERM, and SIGKILL ten seconds later, as Cloud Run does."""
    return lambda name: subprocess.run([*podman, "stop", "-t", "10", name], check=True, capture_output=True)


@pytest.fixture
def data(tmp_path: Path) -> list[str]:
    """Options that give a container a directory to keep the database in."""
    os.chown(tmp_path, 10001, 10001)
    return ["-v", f"{tmp_path}:/data"]


@pytest.fixture
def stand_in(run: Run, data: list[str]) -> list[str]:
    """Options that put the stand-in project, its database migrated, in the place of the example."""
    options = [*data, "-v", f"{PROJECT}:/app/example_project:ro", "-e", "TESTS_DATABASE=/data/standin.sqlite3"]
    migrated = run("migrate", "--noinput", options=options)
    assert migrated.returncode == 0, migrated.stderr
    return options


def test_arguments_reach_an_ordinary_user_s_first_process(run: Run, stand_in: list[str]) -> None:
    """The job's Python is process 1 of the container, is not root, and gets its arguments as they are."""
    arguments = ["--note=two\nlines", "--", "", "two words", "--settings=evil", "日本語"]
    arrived = json.loads(run("arrive", *arguments, options=stand_in).stdout)

    assert (arrived["pid"], arrived["uid"]) == (1, 10001)
    assert arrived["arguments"] == arguments


@pytest.mark.parametrize("code", [0, 7])
def test_exit_code_is_kept(run: Run, stand_in: list[str], code: int) -> None:
    """The container ends with the exit code of the job."""
    assert run("leave", str(code), options=stand_in).returncode == code


def test_sigterm_reaches_the_job(start: Start, stand_in: list[str], stop: Callable[[str], None]) -> None:
    """The job gets the container's SIGTERM, and the container ends with its handler's exit code."""
    container, name = start("leave", "--at-sigterm", "7", options=[*stand_in, "--network", "none"])
    assert container.stdout is not None

    assert container.stdout.readline() == "pid 1\n"

    stop(name)

    assert "got SIGTERM" in container.stdout.read()
    assert container.wait(timeout=10) == 7


def test_example_s_job_runs(run: Run, data: list[str]) -> None:
    """The example's job collects real rates into a database on a volume."""
    options = [*CLOUD, *data]
    migrated = run("migrate", "--noinput", options=options)

    assert migrated.returncode == 0, migrated.stderr

    collected = run("collect_rates", "--since=2020-01-01", "--currency=USD", options=options)

    assert collected.returncode == 0, collected.stderr
    assert "Done." in collected.stdout


def test_example_s_job_fails(run: Run, data: list[str]) -> None:
    """A job that cannot do its work ends non-zero and says why."""
    run("migrate", "--noinput", options=[*CLOUD, *data])
    failed = run("collect_rates", "--source=/nowhere.zip", options=[*CLOUD, *data])

    assert failed.returncode == 1
    assert "/nowhere.zip" in failed.stderr


def test_web_role_serves_and_stops(start: Start, run: Run, data: list[str], stop: Callable[[str], None]) -> None:
    """The example's page comes through nginx, its style sheet from nginx alone, and SIGTERM ends both."""
    run("migrate", "--noinput", options=[*CLOUD, *data])
    address = f"127.0.0.1:{free_port()}"
    web = ["-e", f"PORT={address}", "-e", "EXAMPLE_ALLOWED_HOSTS=127.0.0.1", "--network", "host"]
    container, name = start(options=[*CLOUD, *data, *web])
    wait_for(lambda: answers(f"http://{address}/"), seconds=60)
    page = get(f"http://{address}/", **{"X-Forwarded-Proto": "https"})
    style = get(f"http://{address}/static/rates/rates.css")

    assert page[:2] == (200, "nginx")
    assert "/static/rates/rates.css" in page[2]
    assert style == (200, "nginx", (ROOT / "example_project/rates/static/rates/rates.css").read_text())

    stop(name)

    assert container.wait(timeout=10) == 0


def test_web_role_that_cannot_start_fails(run: Run) -> None:
    """Without its secret key the example does not serve: the container ends non-zero and says why."""
    failed = run(options=[])

    assert failed.returncode == 1
    assert "EXAMPLE_SECRET_KEY" in failed.stderr


def test_celery_worker_gives_its_task_back(
    start: Start,
    data: list[str],
    stop: Callable[[str], None],
    redis_server: Server,
    migrated: Path,
    tmp_path: Path,
) -> None:
    """The manifest's worker has a page when it is ready, and ends within ten seconds, its job in the queue."""
    manifest = yaml.safe_load((ROOT / "docker/celery/worker-service.yaml").read_text())
    [container] = manifest["spec"]["template"]["spec"]["containers"]
    values = {item["name"]: item["value"] for item in container["env"] if "$" not in item.get("value", "$")}
    values |= {"CELERY_BROKER_URL": redis.url(redis_server), "PORT": str(free_port())}
    options = [*CLOUD, *data, *(f"-e={name}={value}" for name, value in values.items())]
    database = Path(shutil.copyfile(migrated, tmp_path / "example.sqlite3"))
    os.chown(database, 10001, 10001)
    worker, name = start(*container["args"], options=[*options, "--network", "host"])
    wait_for(lambda: answers(f"http://127.0.0.1:{values['PORT']}/"))
    work = ("--chunk-size=1", f"--intervals={json.dumps({str(number): 1 for number in range(1500)})}")
    start("cloudrun_jobs", "run", "run_daily_ingest", "--", *work, options=[*options, "--network", "host"])
    wait_for(lambda: tasks_in(database) == [("running", 0)])

    stop(name)

    assert worker.wait(timeout=1) == 0
    assert tasks_in(database) == [("running", 1)]
    with Redis.from_url(values["CELERY_BROKER_URL"]) as client:
        assert client.llen("ingest") == 1


def tasks_in(database: Path) -> list[tuple[str, int]]:
    """Return the status and the interruptions of the recorded tasks."""
    with closing(sqlite3.connect(database)) as connection:
        return connection.execute("SELECT status, interruptions FROM cloudrun_jobs_taskrun").fetchall()


def test_bytecode_is_ready(run: Run) -> None:
    """No module of the project or of a library is compiled when a job starts."""
    options = [
        *CLOUD,
        "--entrypoint",
        "python",
        "-e",
        "PYTHONVERBOSE=1",
        "-e",
        "DJANGO_SETTINGS_MODULE=example.settings",
    ]
    modules = "cloudrun_jobs.command, rates.ecb, google.cloud.run_v2"
    imported = run("-c", f"import django; django.setup(); import {modules}", options=options)
    sources = [line for line in imported.stderr.splitlines() if line.startswith("# code object from")]

    assert imported.returncode == 0, imported.stderr
    assert any("/app/cloudrun_jobs/__pycache__/command." in line for line in sources)
    assert [line for line in sources if line.endswith(".py'") and ("/app/" in line or "/opt/" in line)] == []


def test_image_holds_the_code_alone(run: Run) -> None:
    """The image has the package and the example, and no data from the developer's checkout."""
    found = run("/app", options=["--entrypoint", "find"]).stdout.splitlines()

    assert [path for path in found if path.count("/") == 2] == ["/app/cloudrun_jobs", "/app/example_project"]
    assert [path for path in found if ".sqlite3" in path] == []


def test_image_is_configured_for_both_roles(podman: list[str]) -> None:
    """The user is a number, the entrypoint is in exec form, and no health check would judge a job by its port."""
    inspected = subprocess.run([*podman, "inspect", IMAGE], check=True, capture_output=True, text=True)
    (image,) = json.loads(inspected.stdout)

    assert image["Config"]["User"] == "10001:10001"
    assert image["Config"]["Entrypoint"] == ["/server/entrypoint.sh"]
    assert "Healthcheck" not in image


def test_docker_compose_accepts_the_file(store: Path) -> None:
    """Docker Compose, Debian's build of it, reads docker-compose.yml without a word."""
    compose = store / "docker-compose/usr/libexec/docker/cli-plugins/docker-compose"
    read = subprocess.run(
        [compose, "--profile", "*", "config", "-q"], cwd=ROOT, capture_output=True, text=True, check=False
    )

    assert (read.returncode, read.stderr) == (0, "")
