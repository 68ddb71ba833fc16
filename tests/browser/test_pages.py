"""Every page, in both skins: its width, its colours, its languages and its accessibility."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from tests.browser.accessibility import SCHEMES, findings, unknown
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
        **{name: f"{ADMIN}/job/{path}" for name, path in JOBS.items()},
        **{name: f"{ADMIN}/jobrun/{path}" for name, path in {"runs": "", **RUNS}.items()},
    },
}
#: Widths in pixels, and colour schemes. Those of a language differ from those of the other.
VIEWS = {
    "en": list(product((390, 1280), ("light", "dark"))),
    "ja": [(390, "dark"), (1280, "light")],
    "ko": [(390, "light"), (1280, "dark")],
}


@pytest.mark.parametrize("language", VIEWS)
@pytest.mark.parametrize("skin", PAGES)
def test_pages_fit_their_window(
    site: Site, visit: Callable[..., Visitor], screenshots: Path, skin: str, language: str
) -> None:
    """No page scrolls sideways, on a phone and on a desktop, with long text, in any language."""
    assert photograph_all(visit(site, language=language), skin, language, screenshots, VIEWS[language]) == []


@pytest.mark.parametrize("skin", PAGES)
def test_pages_are_accessible(site: Site, visit: Callable[..., Visitor], skin: str) -> None:
    """axe finds nothing in our markup, and nothing around it that a page of the admin does not have."""
    visitor = visit(site)

    assert find_all(visitor, skin, known(visitor) if skin == "admin" else frozenset()) == []


@pytest.mark.parametrize(("language", "scheme"), [("en", "light"), ("ko", "dark")])
def test_unfold_shows_the_pages(
    unfold_site: Site, visit: Callable[..., Visitor], screenshots: Path, language: str, scheme: str
) -> None:
    """In an admin of django-unfold the pages fit, and have no findings of their own."""
    visitor = visit(unfold_site, language=language, color_scheme=scheme)  # Which a loaded page keeps.
    views, schemes = product((390, 1280), (scheme,)), {scheme: SCHEMES[scheme]}
    wide = photograph_all(visitor, "admin", language, screenshots / "unfold", views)

    assert (wide, find_all(visitor, "admin", known(visitor, schemes), schemes)) == ([], [])


def photograph_all(
    visitor: Visitor, skin: str, language: str, directory: Path, views: Iterable[tuple[int, str]]
) -> list[str]:
    visitor.expected, views, wide = {404}, list(views), []
    for name, path in PAGES[skin].items():
        visitor.goto(path)
        assert visitor.page.locator("html").get_attribute("lang") == language
        wide += visitor.photograph(f"{skin}-{name}-{language}", directory, views)
    return wide


def known(visitor: Visitor, schemes: Mapping[str, Any] = SCHEMES) -> frozenset[str]:
    """Return the rules that a page of the admin itself violates."""
    return frozenset(rule for rule, _, _ in findings(visitor.goto("/admin/auth/user/"), schemes))


def find_all(
    visitor: Visitor, skin: str, known: frozenset[str], schemes: Mapping[str, Any] = SCHEMES
) -> list[str]:
    visitor.expected, found = {404}, []
    for name, path in PAGES[skin].items():
        visitor.goto(path)
        found += [f"{name}: {each}" for each in unknown(findings(visitor.page, schemes), known)]
    return found
