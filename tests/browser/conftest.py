"""Chromium, the sites that it opens, and pages that fail the test at an error in the console."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from django.core.management import call_command

from cloudrun_jobs.emulator import Emulator
from tests.browser import site as sites
from tests.browser.records import PASSWORD
from tests.servers.process import need

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

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
DASHBOARD, ADMIN = "/cloudrun_jobs/dashboard", "/admin/cloudrun_jobs"


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=need("chromium"), args=ARGUMENTS)


@pytest.fixture(scope="session")
def screenshots() -> Path:
    """Return the directory for screenshots, which the run keeps."""
    path = Path(os.environ.get("BROWSER_SCREENSHOTS") or Path(__file__).parent / "screenshots")
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)
    return path
