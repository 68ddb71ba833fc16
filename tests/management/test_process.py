"""A real `manage.py` process: what a container runs."""

from __future__ import annotations

import io
import json
import multiprocessing
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cloudrun_jobs import CloudRunJobs, environ
from cloudrun_jobs.argv import parser_of, serialise
from tests.jobs.management.commands import echo
from tests.logs.reading import shown

MANAGE = Path(__file__).parents[1] / "manage.py"
pytestmark = pytest.mark.usefixtures("process_database")

# Modules that a container does not need to run a job.
NOT_FOR_A_RUN = {"checks", "command_line", "cron", "deploy", "enqueue", "registry", "spec.reservation"}
NOT_FOR_A_RUN |= {f"http.{name}" for name in ("authentication", "credentials", "jobs", "rate", "runs")}
NOT_FOR_A_RUN |= {f"argv.{name}" for name in ("binding", "limits", "parsing", "round_trip", "values", "writing")}

CONTAINER = {
    "CLOUD_RUN_JOB": "echo-production",
    "CLOUD_RUN_EXECUTION": "echo-production-x7k2p",
    "CLOUD_RUN_TASK_INDEX": "0",
    "CLOUD_RUN_TASK_ATTEMPT": "0",
    "CLOUD_RUN_TASK_COUNT": "1",
}


def manage(*argv: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command in a container, and return its output with the messages of its entries."""
    done = manage_raw(*argv, **environment)
    done.stdout, done.stderr = shown(done.stdout), shown(done.stderr)
    return done


def manage_raw(*argv: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(MANAGE), *argv],
        env={**os.environ, **CONTAINER, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def arguments_of(job: CloudRunJobs, *args: Any, **options: Any) -> tuple[str, ...]:
    """What the container of this call would be started with."""
    return (job.command_name, *serialise(parser_of(job), args, options))


@pytest.fixture
def evil(tmp_path: Path) -> Path:
    """A settings module that leaves a mark if it is imported."""
    (tmp_path / "evil.py").write_text("import pathlib; pathlib.Path(__file__).with_name('mark').touch()")
    return tmp_path


@pytest.mark.parametrize(("settings", "pythonpath"), [("--settings", "--pythonpath"), ("--sett", "--pyth")])
def test_no_positional_becomes_an_option_of_manage_py(evil: Path, settings: str, pythonpath: str) -> None:
    """`--settings=evil` and `--pythonpath=/x` arrive as data, and nothing of them is imported."""
    attack = [f"{settings}=evil", f"{pythonpath}={evil}"]
    done = manage(*arguments_of(echo.Command(), *attack), ECHO_TO_STDOUT="1")

    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["words"] == attack
    assert not (evil / "mark").exists()


@pytest.mark.parametrize("value", ["--settings=evil", "--settings=evil --pythonpath={}"])
def test_no_value_becomes_an_option_of_manage_py(evil: Path, value: str) -> None:
    """The value of an option arrives as data, too."""
    attack = value.format(evil)
    done = manage(*arguments_of(echo.Command(), note=attack), ECHO_TO_STDOUT="1")

    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["note"] == attack
    assert not (evil / "mark").exists()


def test_naive_arguments_reach_manage_py(evil: Path) -> None:
    """The same values, written as two arguments, are consumed by manage.py."""
    manage("echo", "--note", "--settings=evil", f"--pythonpath={evil}")

    assert (evil / "mark").exists()


@pytest.mark.parametrize(
    ("ending", "code"),
    [
        ("text", 0),
        ("exit 0", 0),
        ("error", 1),
        ("set", 1),
        ("exit", 3),
        ("exit 256", 1),
        ("exit text", 1),
        ("command error", 1),
        ("command error 0", 1),
        ("oops", 2),
    ],
)
def test_exit_status(ending: str, code: int) -> None:
    """A job that failed in any way exits non-zero, so that Cloud Run retries it and alerts fire."""
    assert manage("outcome", "--", ending).returncode == code


def test_container_needs_no_project() -> None:
    """Only the dispatch of a job needs the project and the region."""
    done = manage("outcome", "--", "text", CLOUDRUN_JOBS_ENVIRONMENT="production")

    assert (done.returncode, done.stdout) == (0, "all done\n")


def test_misspelt_variable_is_refused_in_a_container() -> None:
    """A container validates its settings too."""
    done = manage("outcome", "--", "text", CLOUDRUN_JOBS_ENVIROMENT="production")

    assert done.returncode == 1
    assert "Did you mean 'CLOUDRUN_JOBS_ENVIRONMENT'?" in done.stderr


def test_text_result_is_printed() -> None:
    """As with any command of Django's."""
    assert manage("outcome", "--", "text").stdout == "all done\n"


@pytest.mark.parametrize("environment", ["local", "production"])
def test_job_starts_without_google_grpc_or_redis(environment: str) -> None:
    """`manage.py <job>` imports none of the large libraries, in any environment."""
    done = manage(
        "imports",
        CLOUDRUN_JOBS_ENVIRONMENT=environment,
        CLOUDRUN_JOBS_PROJECT="acme",
        CLOUDRUN_JOBS_REGION="asia-northeast1",
    )

    modules = done.stdout.split()
    assert "cloudrun_jobs.command" in modules
    assert [name for name in modules if name.partition(".")[0] in {"google", "grpc", "redis", "croniter"}] == []
    assert not {f"cloudrun_jobs.{name}" for name in NOT_FOR_A_RUN} & set(modules)
    assert "pythonjsonlogger" not in modules


@pytest.mark.parametrize("backend", [None, "celery"])
def test_container_does_not_import_celery(backend: str | None) -> None:
    """A project with jobs on Celery workers does not pay for it in the containers of its other jobs."""
    entry = {"BACKEND": "cloudrun_jobs.backends.celery.CeleryBackend", "OPTIONS": {"queues": ["ingest"]}}
    routes = {"echo": "celery", "imports": backend or "default"}
    done = manage(
        "imports",
        CLOUDRUN_JOBS_ENVIRONMENT="production",
        CLOUDRUN_JOBS_BACKENDS=json.dumps({"celery": entry}),
        CLOUDRUN_JOBS_ROUTES=json.dumps(routes),
    )

    assert "cloudrun_jobs.command" in done.stdout.split()
    found = [name for name in done.stdout.split() if {"celery", "kombu", "billiard"} & {*name.split(".")}]
    assert found == []


@pytest.mark.parametrize("variables", [{}, dict.fromkeys(CONTAINER, "")], ids=["container", "elsewhere"])
def test_http_api_that_is_not_included_is_not_imported(tmp_path: Path, variables: dict[str, str]) -> None:
    """A project without its URLs pays for neither the views nor google-auth, checks included."""
    (tmp_path / "own_urls.py").write_text("urlpatterns = []")
    (tmp_path / "own_settings.py").write_text("from tests.settings import *\nROOT_URLCONF = 'own_urls'\n")
    own = {"PYTHONPATH": str(tmp_path), "DJANGO_SETTINGS_MODULE": "own_settings"}
    done = manage("imports", **own, **variables)

    modules = done.stdout.split()
    assert ("own_urls" in modules, "cloudrun_jobs.checks" in modules) == (True, bool(variables))
    assert [name for name in modules if name.startswith(("cloudrun_jobs.http", "cloudrun_jobs.urls"))] == []
    assert not {"google.auth", "requests"} & set(modules)


@pytest.mark.parametrize("start_method", multiprocessing.get_all_start_methods())
@pytest.mark.parametrize("pool", ["Pool", "ProcessPoolExecutor"])
def test_job_uses_worker_processes(pool: str, start_method: str) -> None:
    """The worker function may be in the command's module, which a worker imports without django.setup()."""
    done = manage("workers", pool, start_method)

    assert (done.returncode, done.stdout, done.stderr) == (0, "[0, 1, 4, 9]\n", "")


def test_importing_a_job_loads_no_models() -> None:
    """A job's module can be imported before the app registry is ready."""
    code = "import sys, tests.jobs.management.commands.workers; print('cloudrun_jobs.models' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=MANAGE.parents[1],
        env={**os.environ, "DJANGO_SETTINGS_MODULE": "tests.settings"},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )

    assert done.stdout == "False\n"


def test_checking_a_cloud_backend_imports_no_google_client() -> None:
    """System checks and subcommands stay fast when the cloud is configured."""
    code = (
        "import django, sys; django.setup()\n"
        "from django.core.checks import run_checks; assert not run_checks()\n"
        "import cloudrun_jobs.management.subcommands.doctor\n"
        "print(*sys.modules)"
    )
    environment = {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "tests.settings",
        "CLOUDRUN_JOBS_ENVIRONMENT": "production",
        "CLOUDRUN_JOBS_PROJECT": "acme",
        "CLOUDRUN_JOBS_REGION": "asia-northeast1",
    }
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=MANAGE.parents[1],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )

    modules = done.stdout.split()
    assert "cloudrun_jobs.backends.cloudrun" in modules
    assert [name for name in modules if name.partition(".")[0] in {"google", "grpc"}] == []


@pytest.mark.parametrize("ending", ["error forged", "command error forged", "exit forged"])
def test_text_of_an_exception_is_no_log_entry(ending: str) -> None:
    """However a job fails in a container, the text of its exception begins no line of the output."""
    done = manage_raw("outcome", ending)

    lines = [line for line in done.stderr.splitlines() if "ALERT" in line]
    assert done.returncode == 1
    assert lines
    assert not any(line.startswith('{"severity": "ALERT"') or "\x1b" in line for line in lines)


WRITES = {
    "print": "print('written')",
    "sys.stderr": "sys.stderr.write('written\\n')",
    "logging": "logging.basicConfig(stream=sys.stdout); logging.error('written')",
    "a job": "echo.Command.run = lambda self, **options: (self.stdout.write('written'), kill()); run()",
    "a job's stderr": "echo.Command.run = lambda self, **options: (self.stderr.write('written'), kill()); run()",
}
PRELUDE = """
import logging, os, signal, sys
from django.core.management import call_command
from tests.jobs.management.commands import echo

def kill():
    os.kill(os.getpid(), signal.SIGKILL)

def run():
    call_command(echo.Command())
"""


@pytest.mark.parametrize("variables", [{"PYTHONUNBUFFERED": ""}, {"PYTHONIOENCODING": "latin-1"}], ids=str)
@pytest.mark.parametrize("statement", WRITES.values(), ids=WRITES.keys())
def test_output_of_a_killed_container_is_complete(
    monkeypatch: pytest.MonkeyPatch, statement: str, variables: dict[str, str]
) -> None:
    """Every line that was written before SIGKILL arrives, whatever the variables, and before any job runs."""
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)

    done = manage("shell", "--verbosity=0", "-c", f"{PRELUDE}\n{statement}\nkill()", **variables)

    assert done.returncode == -9
    assert "written" in done.stdout + done.stderr


def test_replaced_output_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream that is no text file, such as a test's, is not changed; nor is a missing one."""
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    monkeypatch.setattr(sys, "stderr", None)

    environ.line_buffer_output()
