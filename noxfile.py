"""What `make` runs: each session in an environment of its own, from locked requirements."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import nox

# Django, and the oldest and newest Python 3 it supports.
SUPPORTED = {"5.2": (11, 14), "6.0": (12, 14), "6.1": (12, 15)}
UV = str(Path(sys.executable).with_name("uv"))

nox.options.default_venv_backend = "uv"
nox.options.download_python = "never"
nox.options.error_on_missing_interpreters = True
nox.options.reuse_existing_virtualenvs = True
nox.options.sessions = ["lint", "tests"]


# Four workers: tests wait for processes and servers, and two would leave two cores idle for a third of the time.
# gcloud's own tests take seconds for each call: `make test-clients`.
SUITE = ("-q", "-n", "4", "--dist", "worksteal", "-k", "not gcloud")
FEW_EXAMPLES = {"HYPOTHESIS_PROFILE": "few"}


def pythons() -> list[int]:
    """Return the minor versions of Python 3 that PATH has, from 3.11 up."""
    here = sys.version_info[1]
    return [minor for minor in range(11, 16) if minor == here or starts(f"python3.{minor}")]


def starts(program: str) -> bool:
    """Return True if PATH has a program of this name that starts: a shim of pyenv's may not."""
    found = filter(None, (shutil.which(program, path=folder) for folder in os.get_exec_path()))
    return any(subprocess.run([path, "-c", ""], capture_output=True).returncode == 0 for path in found)


def supported(django: str, minor: int) -> bool:
    oldest, newest = SUPPORTED[django]
    return oldest <= minor <= newest


# The pairs of Python and Django that this machine has, from the oldest to the newest.
PAIRS = [(f"3.{minor}", django) for minor in pythons() for django in SUPPORTED if supported(django, minor)]
OLDEST, NEWEST = PAIRS[0], PAIRS[-1]


def locked(django: str) -> str:
    return f"requirements/django{django.replace('.', '')}.txt"


def install(session: nox.Session, django: str) -> None:
    session.install("--quiet", "--require-hashes", "-r", locked(django))
    session.install("--quiet", "--no-deps", "--editable", ".")


@nox.session(python=NEWEST[0])
def lint(session: nox.Session) -> None:
    """Style, types and import rules."""
    install(session, NEWEST[1])
    session.run("ruff", "check", "--quiet")
    session.run("ruff", "format", "--check", "--quiet")
    session.run("mypy")
    session.run("lint-imports", silent=True)


@nox.session(python=NEWEST[0])
def tests(session: nox.Session) -> None:
    """The suite on the newest pair, in random order; `-- tests/argv` for a part of it."""
    suite(session, NEWEST[1])


def suite(session: nox.Session, django: str) -> None:
    install(session, django)
    session.run("pytest", *SUITE, *session.posargs)


@nox.session
@nox.parametrize(("python", "django"), PAIRS, ids=[f"{python}-django{django}" for python, django in PAIRS])
def pair(session: nox.Session, django: str) -> None:
    """The suite on one pair."""
    suite(session, django)


# What the oldest pair leaves out, as slow and independent of the pair: the further servers, the README's
# commands, the images' scripts, the example's whole history, and the emulator's tests of calls and processes.
EMULATOR_IN_PROCESS = ("field_masks", "filters", "grammar", "knative", "messages", "schedules", "template_limits")
LEFT_OUT = (
    "tests/test_readme.py",
    "tests/containers",
    "tests/deploying",
    *(
        str(path)
        for path in sorted(Path("tests/emulator").glob("test_*.py"))
        if path.stem.removeprefix("test_") not in EMULATOR_IN_PROCESS
    ),
    "tests/example/test_collected_rates_match_source.py",
    "tests/repository",
)
OLDEST_SUITE = (
    *SUITE,
    *("-k", "not gcloud and not mariadb and not valkey and not pgbouncer"),
    *(f"--ignore={path}" for path in LEFT_OUT),
)


@nox.session(python=OLDEST[0])
def oldest(session: nox.Session) -> None:
    """The suite on the oldest pair, with a quarter of the examples of Hypothesis."""
    install(session, OLDEST[1])
    session.run("pytest", *OLDEST_SUITE, env=FEW_EXAMPLES)


@nox.session(python=OLDEST[0])
def coverage(session: nox.Session) -> None:
    """The suite on the oldest pair with coverage, which costs a third of the time more."""
    install(session, OLDEST[1])
    session.run("coverage", "erase")
    session.run("coverage", "run", "-m", "pytest", *OLDEST_SUITE, env=FEW_EXAMPLES)
    session.run("coverage", "combine", "--quiet")
    session.run("coverage", "report", "--fail-under=95")


@nox.session(python=NEWEST[0])
def messages(session: nox.Session) -> None:
    """The catalogs of the languages, with the strings of the code, and compiled."""
    install(session, NEWEST[1])
    options = ("--no-wrap", "--add-location", "file", "--ignore", "emulator/*", "--no-obsolete")
    with session.chdir("cloudrun_jobs"):
        session.run("django-admin", "makemessages", "--locale", "ja", "--locale", "ko", *options)
        session.run("django-admin", "compilemessages", "--locale", "ja", "--locale", "ko")


@nox.session(venv_backend="none")
def wheel(session: nox.Session) -> None:
    """The sdist and, from it, the wheel: built once, into dist/, and checked for what it holds."""
    shutil.rmtree("dist", ignore_errors=True)
    session.run(UV, "build", "--quiet")
    session.run(sys.executable, "tests/package/contents.py", *map(str, Path("dist").glob("*.whl")))


@nox.session(python=NEWEST[0], reuse_venv=False)
def installed(session: nox.Session) -> None:
    """The wheel in dist/, installed: alone in a new project, then with its extras under a part of the suite."""
    (built,) = Path("dist").resolve().glob("*.whl")
    lock = ["--quiet", "--constraint", locked(NEWEST[1])]
    session.install(*lock, f"django-cloudrun-jobs @ {built.as_uri()}")
    session.run("python", "-P", "tests/package/new_project.py")
    session.install(*lock, f"django-cloudrun-jobs[dev] @ {built.as_uri()}")
    # In a copy, which has no package beside the tests.
    copy = Path(session.create_tmp()) / "suite"
    shutil.rmtree(copy, ignore_errors=True)
    for name in ("tests", "example_project"):
        shutil.copytree(name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy("pyproject.toml", copy)
    with session.chdir(copy):
        pytest = ("python", "-m", "pytest", "-q", "-n", "2", "-m", "not containers and not faults")
        session.run(*pytest, "tests/package", "tests/spec")


@nox.session(python=NEWEST[0])
def faults(session: nox.Session) -> None:
    """What locks and records guarantee while processes and servers are killed, stopped and cut off."""
    install(session, NEWEST[1])
    # Only the modules that have such tests: each process of pytest-xdist imports all that are named.
    modules = [str(path) for path in sorted(Path("tests").rglob("test_*.py")) if "mark.faults" in path.read_text()]
    modules = [path for path in modules if not path.startswith("tests/bigquery/")]  # It has a session of its own.
    # A module with workers of Celery starts them once, on one process.
    session.run("pytest", "-q", "-n", "3", "--dist", "loadgroup", "-m", "faults", *(session.posargs or modules))


@nox.session(python=NEWEST[0])
def bigquery(session: nox.Session) -> None:
    """The export of BigQuery tables in the example, with Google's clients and local servers."""
    install_bigquery(session)
    # bqemulator's plugin for pytest wants containers.
    session.run("pytest", "-q", "-n", "2", "-p", "no:bqemulator", "tests/bigquery", *session.posargs)


def install_bigquery(session: nox.Session) -> None:
    session.install("--quiet", "--require-hashes", "-r", "requirements/bigquery.txt")
    session.install("--quiet", "--no-deps", "--editable", ".")


@nox.session(python=NEWEST[0])
def soak(session: nox.Session) -> None:
    """Ten minutes of a nemesis on each kind of lock; `-- --seconds 60 --kind redis` for less."""
    install(session, NEWEST[1])
    session.run("python", "-m", "tests.locks.soak", *(session.posargs or ["--seconds", "600"]))


@nox.session(python=NEWEST[0])
def mutations(session: nox.Session) -> None:
    """Removes each rule of the locks and of the records and sees a test fail; `-- words` for some of them."""
    install(session, NEWEST[1])
    for rules in ("locks", "runs"):
        session.run("python", "-m", f"tests.{rules}.mutations", *session.posargs)


@nox.session(python=NEWEST[0])
def demo(session: nox.Session) -> None:
    """The example's job on the whole history of the European Central Bank's reference rates."""
    install(session, NEWEST[1])
    session.run("python", "example_project/demo.py", env={"PYTHONUNBUFFERED": "1"})


@nox.session(python=NEWEST[0])
def demo_export(session: nox.Session) -> None:
    """The example's export of BigQuery tables, on local servers and the emulator of Cloud Run."""
    install_bigquery(session)
    session.run("python", "example_project/demo_export.py", env={"PYTHONUNBUFFERED": "1", "PYTHONPATH": "."})


@nox.session(python=NEWEST[0])
def bench(session: nox.Session) -> None:
    """The benchmarks, as ratios."""
    install(session, NEWEST[1])
    session.run("python", "-m", "benchmarks", *session.posargs)


@nox.session(python=NEWEST[0])
def containers(session: nox.Session) -> None:
    """DockerfileServer, built with buildah and run with runc: as root, on Debian."""
    install(session, NEWEST[1])
    session.run("pytest", "-q", "-s", "-m", "containers", "tests/containers", *session.posargs)


@nox.session(python=NEWEST[0])
def gcloud(session: nox.Session) -> None:
    """The gcloud CLI against the emulator."""
    install(session, NEWEST[1])
    folders = ("tests/emulator", "tests/deploy", "tests/deploying", "tests/doctor", "tests/example")
    session.run("pytest", "-q", "-n", "3", "--dist", "worksteal", "-k", "gcloud", *folders, *session.posargs)


# The modules of tests/clients, and what their environments have. Node's libraries are in its package.json.
CLIENTS = {
    "airflow": ("apache-airflow-providers-google==22.8.0",),
    "cloudrun_job": ("django-cloudrun-job==0.1.0", "Django==6.1.3"),
    "discovery": ("google-api-python-client==2.202.0",),
    "django_tasks_google": ("django-tasks-google==0.6.0", "Django==6.1.3"),
    "litestar_queues": ("litestar-queues[cloudrun,sqlspec]==0.12.0", "aiosqlite==0.22.1"),
    "nodejs": (),
    "prefect": ("prefect-gcp==0.6.22",),
    "taskferry": ("taskferry-cloudrun[gcp]==0.4.0", "google-cloud-logging==3.17.0"),
}


@nox.session(python=NEWEST[0])
@nox.parametrize("name", list(CLIENTS), ids=list(CLIENTS))
def client(session: nox.Session, name: str) -> None:
    """A client of another project's, in an environment of its own, against the emulator."""
    if name == "nodejs":
        if not shutil.which("npm"):
            session.skip("Node's libraries are not tested: npm is not installed.")
        with session.chdir("tests/clients/node"):
            session.run("npm", "ci", "--silent", "--ignore-scripts", "--no-audit", "--no-fund", external=True)
    else:
        session.install("--quiet", *CLIENTS[name])
    emulator = Path(".nox") / "lint" / "bin" / "python"
    session.run("python", "-m", f"tests.clients.{name}", str(emulator.absolute()))
    if name == "discovery":
        (documents,) = (
            Path(session.virtualenv.location).resolve().glob("lib/*/site-packages/googleapiclient/*/documents")
        )
        comparisons = ("-m", "pytest", "-q", "tests/emulator/test_discovery_documents.py")
        env = {"TESTS_DISCOVERY_DOCUMENTS": str(documents)}
        session.run(str(emulator.absolute()), *comparisons, env=env, external=True)


@nox.session(python=NEWEST[0])
def fuzz(session: nox.Session) -> None:
    """schemathesis, in an environment of its own, against the HTTP API of a live server."""
    session.install("--quiet", "schemathesis==4.32.*")
    tests = Path(".nox") / "lint" / "bin" / "python"
    schemathesis = Path(session.bin).absolute() / "schemathesis"
    # The same cases in each run of CI; without the options, others.
    options = session.posargs or ["--seed", "1", "--examples", "4"]
    command = (str(tests.absolute()), "-m", "tests.http_api.fuzz", str(schemathesis))
    session.run(*command, *options, external=True)


@nox.session(python=NEWEST[0])
def frameworks(session: nox.Session) -> None:
    """Django Ninja and Django REST framework of a project, in an environment of its own, beside the HTTP API."""
    others = ("django-ninja==1.7.*", "djangorestframework==3.18.*", "drf-spectacular")
    session.install("--quiet", "--constraint", locked(NEWEST[1]), *others, "--editable", ".")
    session.run("python", "-m", "tests.http_api.frameworks")


@nox.session(python=NEWEST[0])
def browser(session: nox.Session) -> None:
    """The pages in Chromium, with the admin and django-unfold, in an environment of its own."""
    others = ("playwright==1.65.*", "axe-playwright-python==0.1.8", "django-unfold==0.110.*")
    session.install("--quiet", "--constraint", locked(NEWEST[1]), *others, "--editable", ".[dev]")
    # Playwright runs an event loop in the thread of the tests, and the suite's own fixtures use the database.
    env = {"DJANGO_ALLOW_ASYNC_UNSAFE": "true"}
    pytest = ("pytest", "-q", "-n", "2", "--dist", "loadfile")
    session.run(*pytest, "tests/browser", "tests/admin/test_projects.py", *session.posargs, env=env)


@nox.session(python=NEWEST[0])
def terraform(session: nox.Session) -> None:
    """Terraform, if it is installed, with what stands in for Google's provider in an environment of its own."""
    session.install("--quiet", "tf==1.2.0")
    # For the arguments of the provider.
    session.install("--quiet", "--no-deps", "cdktf-cdktf-provider-google==16.12.1")
    tests = Path(".nox") / "lint" / "bin" / "python"
    env = {"TESTS_TERRAFORM_PYTHON": str(Path(session.bin).absolute() / "python")}
    session.run(
        str(tests.absolute()),
        "-m",
        "pytest",
        "-q",
        "tests/deploy/export/test_terraform.py",
        "tests/deploying/test_terraform.py",
        env=env,
        external=True,
    )
