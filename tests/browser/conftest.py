"""Chromium, the sites that it opens, and pages that fail their test at an error in the console."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cloudrun_jobs.emulator import Emulator
from tests.browser import site as sites
from tests.browser.site import Site
from tests.browser.visitor import Visitor
from tests.servers.process import need

if TYPE_CHECKING:
    from playwright.sync_api import Browser

# `make test` has no Playwright: `make test-browser` names this directory.
collect_ignore_glob = [] if find_spec("playwright") else ["test_*.py"]

ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    from playwright.sync_api import sync_playwright

    program = need("chromium")
    with sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=program, args=ARGUMENTS)


@pytest.fixture(scope="session")
def screenshots() -> Path:
    """Return the directory of the run's screenshots, which stay."""
    path = Path(os.environ.get("BROWSER_SCREENSHOTS") or Path(__file__).parent / "screenshots")
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)
    return path


@pytest.fixture(scope="session")
def database(migrated: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a database with the users and runs of `tests.browser.records`."""
    path = tmp_path_factory.mktemp("browser") / "db.sqlite3"
    shutil.copyfile(migrated, path)
    sites.fill(path)
    return path


@pytest.fixture(scope="session")
def emulator(database: Path) -> Iterator[Emulator]:
    """An emulator with the job `walk`."""
    with Emulator(directory=sites.ROOT / "tests", grace=1.0) as emulator:
        sites.deploy(emulator, database)
        yield emulator


@pytest.fixture(scope="session")
def site(database: Path, emulator: Emulator) -> Iterator[Site]:
    with sites.serve(database, emulator) as site:
        yield site


@pytest.fixture(scope="session")
def unfold_site(database: Path, emulator: Emulator) -> Iterator[Site]:
    """The site with django-unfold, without a content security policy."""
    with sites.serve(database, emulator, unfold=True) as site:
        yield site


@pytest.fixture
def visit(browser: Browser) -> Iterator[Callable[..., Visitor]]:
    """Open the site in a new session; at the end, fail at an error in the console of one of its pages."""
    visitors = []

    def visit(site: Site, user: str = "operator", **options: str) -> Visitor:
        visitors.append(Visitor(browser, site, **options))
        visitors[-1].sign_in(user)
        return visitors[-1]

    yield visit
    errors = [error for visitor in visitors for error in visitor.close()]
    assert errors == []
