"""What `make` runs: each session in an environment of its own, from locked requirements."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import nox

# Interpreters that pyenv keeps answer to their full name only with their directory on the path.
PYENV = sorted((Path.home() / ".pyenv/versions").glob("3.1*/bin"))
os.environ["PATH"] = os.pathsep.join([os.environ["PATH"], *map(str, PYENV)])

# Django, and the oldest and newest Python 3 it supports.
SUPPORTED = {"5.2": (11, 14), "6.0": (12, 14), "6.1": (12, 15)}

nox.options.default_venv_backend = "uv"
nox.options.error_on_missing_interpreters = True
nox.options.reuse_existing_virtualenvs = True
nox.options.sessions = ["lint", "tests"]


def pythons() -> list[int]:
    """The minor versions of Python 3 found on this machine, from 3.11 up."""
    here = sys.version_info[1]
    return [minor for minor in range(11, 16) if minor == here or shutil.which(f"python3.{minor}")]


def supported(django: str, minor: int) -> bool:
    oldest, newest = SUPPORTED[django]
    return oldest <= minor <= newest


def pairs() -> list[tuple[str, str]]:
    """The oldest and the newest pair of Python and Django that this machine has, or all with ALL_PAIRS=1."""
    found = [(f"3.{minor}", django) for minor in pythons() for django in SUPPORTED if supported(django, minor)]
    return found if os.environ.get("ALL_PAIRS") else sorted({found[0], found[-1]})


PAIRS = pairs()
OLDEST, NEWEST = PAIRS[0], PAIRS[-1]


def install(session: nox.Session, django: str) -> None:
    session.install("--quiet", "--require-hashes", "-r", f"requirements/django{django.replace('.', '')}.txt")
    session.install("--quiet", "--no-deps", "--editable", ".")


@nox.session(python=NEWEST[0])
def lint(session: nox.Session) -> None:
    """Style, types and import rules."""
    install(session, NEWEST[1])
    session.run("ruff", "check", "--quiet")
    session.run("ruff", "format", "--check", "--quiet")
    session.run("mypy")
    session.run("lint-imports", silent=True)


@nox.session
@nox.parametrize(("python", "django"), PAIRS, ids=[f"{python}-django{django}" for python, django in PAIRS])
def tests(session: nox.Session, django: str) -> None:
    """The whole suite, in random order; with the newest pair coverage, gcloud and the long faults, too."""
    install(session, django)
    if session.posargs or (session.python, django) != NEWEST:
        # gcloud brings a Python of its own and takes seconds for each call: once is enough.
        session.run("pytest", "-q", "-n", "2", *(session.posargs or ["-k", "not gcloud"]))
        return
    session.run("coverage", "erase")
    session.run("coverage", "run", "-m", "pytest", "-q", "-n", "2")
    session.run("coverage", "combine", "--quiet")
    session.run("coverage", "report", "--fail-under=95")
    session.run("pytest", "-q", "-n", "2", "-m", "faults", "tests/locks", "tests/crashes")


@nox.session(python=NEWEST[0])
def faults(session: nox.Session) -> None:
    """What locks promise while processes and servers are killed, stopped, cut off and restarted."""
    install(session, NEWEST[1])
    session.run("pytest", "-q", "-m", "faults", "tests/locks", "tests/crashes", *session.posargs)


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
def clients(session: nox.Session) -> None:
    """Airflow's Cloud Run operator, in an environment of its own, against the emulator."""
    session.install("--quiet", "apache-airflow-providers-google")
    emulator = Path(".nox") / "lint" / "bin" / "python"
    session.run("python", "tests/emulator/airflow_client.py", str(emulator.absolute()), *session.posargs)


@nox.session(python=NEWEST[0])
def terraform(session: nox.Session) -> None:
    """Terraform, if it is installed, with what stands in for Google's provider in an environment of its own."""
    session.install("--quiet", "tf==1.2.0")
    # For the arguments of the provider.
    session.install("--quiet", "--no-deps", "cdktf-cdktf-provider-google==16.12.1")
    tests = Path(".nox") / "lint" / "bin" / "python"
    env = {"TESTS_TERRAFORM_PYTHON": str(Path(session.bin).absolute() / "python")}
    session.run(str(tests.absolute()), "-m", "pytest", "tests/export/test_terraform.py", env=env, external=True)
