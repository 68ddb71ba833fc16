"""Every page, in both skins: its width, its colours, its languages and its accessibility."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.browser.records import FAILED, RUNNING, SUCCEEDED
from tests.browser.site import Site
from tests.browser.visitor import ADMIN, DASHBOARD, Visitor

RUNS = {"failed": f"{FAILED}/", "running": f"{RUNNING}/", "succeeded": f"{SUCCEEDED}/"}
JOBS = {"jobs": "", "job": "walk/", "start": "everything/start/"}
PAGES = {
    "dashboard": {
        **{name: f"{DASHBOARD}/jobs/{path}" for name, path in JOBS.items()},
        **{name: f"{DASHBOARD}/runs/{path}" for name, path in {"runs": "", **RUNS}.items()},
        "missing": f"{DASHBOARD}/nothing/",
    },
    "admin": {
        "index": "/admin/",
        **{name: f"{ADMIN}/job/{path}" for name, path in JOBS.items()},
        **{name: f"{ADMIN}/jobrun/{path}" for name, path in {"runs": "", **RUNS}.items()},
    },
}


@pytest.mark.parametrize("language", ["en", "ja", "ko"])
@pytest.mark.parametrize("skin", PAGES)
def test_pages_fit_their_window(
    site: Site, visit: Callable[..., Visitor], screenshots: Path, skin: str, language: str
) -> None:
    """No page scrolls sideways, on a phone and on a desktop, with long text, in any language."""
    assert photograph_all(visit(site, language=language), skin, language, screenshots) == []


def photograph_all(visitor: Visitor, skin: str, language: str, directory: Path) -> list[str]:
    visitor.expected = {404}
    wide = []
    for name, path in PAGES[skin].items():
        visitor.goto(path)
        assert visitor.page.locator("html").get_attribute("lang") == language
        wide += visitor.photograph(f"{skin}-{name}-{language}", directory)
    return wide
