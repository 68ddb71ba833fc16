"""What axe-core finds on a page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from axe_playwright_python.sync_playwright import Axe

if TYPE_CHECKING:
    from playwright.sync_api import Page

IN_OURS = "selectors => selectors.map(each => !!document.querySelector(each)?.closest('.cloudrun-jobs'))"
CONTRAST = {"runOnly": {"type": "rule", "values": ["color-contrast"]}}
#: What axe looks for in each colour scheme.
SCHEMES: Mapping[str, Any] = {"light": {}, "dark": CONTRAST}
# Links of the admin change their colour slowly.
FINISH = (
    "() => document.getAnimations().filter(each => each instanceof CSSTransition).forEach(each => each.finish())"
)


def findings(page: Page, schemes: Mapping[str, Any] = SCHEMES) -> list[tuple[str, str, bool]]:
    """Return the rule, the element and whether it is in our markup, of each finding in these colour schemes."""
    found = []
    for scheme, options in schemes.items():
        page.emulate_media(color_scheme=scheme)
        found += _run(page, options)
    in_ours = page.evaluate(IN_OURS, [selector for _, selector in found])
    return [(rule, selector, ours) for (rule, selector), ours in zip(found, in_ours, strict=True)]


def _run(page: Page, options: Any) -> list[tuple[str, str]]:
    page.evaluate(FINISH)
    response: Any = Axe().run(page, options={"resultTypes": ["violations"], **options}).response
    return [(rule["id"], node["target"][0]) for rule in response["violations"] for node in rule["nodes"]]


def unknown(found: list[tuple[str, str, bool]], known: frozenset[str]) -> list[str]:
    """Return the findings in our markup, and those of rules that are not known elsewhere on the page."""
    return [f"{rule}: {selector}" for rule, selector, ours in found if ours or rule not in known]
