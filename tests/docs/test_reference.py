"""The reference documents every check id, signal, exception, setting, status and attribute of the code."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest
from django.dispatch import Signal

import cloudrun_jobs
from cloudrun_jobs import conf, environ, exceptions, locks, models, signals
from cloudrun_jobs.backends.cloudrun import CloudRunBackend
from cloudrun_jobs.locks.database import DatabaseLocks
from cloudrun_jobs.locks.redis import RedisLocks
from cloudrun_jobs.spec import DECLARATIONS

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
SOURCES = [
    path.read_text()
    for path in (ROOT / "cloudrun_jobs").rglob("*.py")
    if "emulator" not in path.relative_to(ROOT / "cloudrun_jobs").parts
]
SUBJECT = re.compile(r"^(?:#+ |\| )(.*?)(?: \||$)", re.MULTILINE)  # A heading, or the first cell of a row.
NAME = re.compile(r"`([\w.]+)")


def documented(page: str) -> set[str]:
    """Return the names that the page's headings and tables define."""
    text = (DOCS / page).read_text()
    return {name for subject in SUBJECT.findall(text) for name in NAME.findall(subject)}


def found(pattern: str) -> set[str]:
    """Return what the pattern's group matches in the package, the emulator excepted."""
    return {name for source in SOURCES for name in re.findall(pattern, source)}


def options(backend: type) -> set[str]:
    """Return the keyword-only parameters of a backend: what its OPTIONS may contain."""
    parameters = inspect.signature(backend).parameters.values()
    return {parameter.name for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY}


def exception_names() -> set[str]:
    """Return the public classes of the module `exceptions` that can be raised."""
    classes = inspect.getmembers(exceptions, inspect.isclass)
    own = [(name, cls) for name, cls in classes if cls.__module__ == exceptions.__name__ and name[0] != "_"]
    return {name for name, cls in own if issubclass(cls, BaseException)}


CHECKS = found(r"\bcloudrun_jobs\.[EW]\d{3}\b")
ACTIONS = found(r'"action": "(\w+)"')
REASONS = found(r'\breason="(\w+)"')
SIGNALS = {name for name, value in vars(signals).items() if isinstance(value, Signal)}
OPTIONS = options(CloudRunBackend) | options(DatabaseLocks) | options(RedisLocks)


@pytest.mark.parametrize(
    ("page", "names"),
    [
        ("reference/checks.md", CHECKS),
        ("reference/signals.md", SIGNALS),
        ("reference/exceptions.md", exception_names()),
        ("reference/settings.md", conf.KEYS | OPTIONS | {*environ.EXECUTION_VARIABLES}),
        ("reference/statuses.md", {*models.Status, *models.Trigger} | REASONS),
        ("reference/api.md", {*cloudrun_jobs.__all__, *locks.__all__, *models.__all__}),
        ("attributes.md", {*DECLARATIONS}),
    ],
)
def test_every_name_is_documented(page: str, names: set[str]) -> None:
    """A heading or a table row of the page defines each name."""
    assert names
    assert sorted(names - documented(page)) == []


def test_every_log_action_is_documented() -> None:
    """The section on log records lists each value of `record.action`."""
    table = (DOCS / "reference" / "signals.md").read_text().partition("## Log records")[2]

    assert sorted((SIGNALS | ACTIONS) - {*re.findall(r"`(\w+)`", table)}) == []


def test_documented_checks_exist() -> None:
    """The page lists no id that the code does not report."""
    assert sorted(documented("reference/checks.md") - CHECKS) == []
