"""A session in the browser."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.browser.records import PASSWORD
from tests.browser.site import Site

if TYPE_CHECKING:
    from playwright.sync_api import Browser, ConsoleMessage, Page

DASHBOARD, ADMIN = "/cloudrun_jobs/dashboard", "/admin/cloudrun_jobs"
#: Widths and colours of a page that was loaded once.
VIEWS = [(width, scheme) for width in (390, 1280) for scheme in ("light", "dark")]
HEIGHT = 900
# The page is not wider than the window, and neither is anything that is visible outside a box that scrolls.
OVERFLOW = """() => {
  const width = document.documentElement.clientWidth;
  const found = document.documentElement.scrollWidth > width || document.body.scrollWidth > width;
  return found ? [...document.querySelectorAll('body *')]
    .filter(each => each.getBoundingClientRect().right > width + 1 && !each.closest('.scroll, .results, pre'))
    .map(each => each.tagName + '.' + each.className).slice(0, 5) : [];
}"""


class Visitor:
    """A page in a session of its own, and the errors in its console."""

    def __init__(
        self, browser: Browser, site: Site, language: str = "en", width: int = 1280, **options: Any
    ) -> None:
        viewport = {"width": width, "height": HEIGHT}
        self.context = browser.new_context(base_url=site.url, locale=language, viewport=viewport, **options)
        self.context.set_default_timeout(15_000)
        self.page: Page = self.context.new_page()
        self.errors: list[str] = []
        self.expected: set[int] = set()  # Statuses of responses, which the console names too.
        self.page.on("console", self._note)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))

    def sign_in(self, user: str) -> None:
        self.page.goto(f"{DASHBOARD}/jobs/")  # Redirects to the admin's.
        self.page.locator("[name=username]").fill(user)
        self.page.locator("[name=password]").fill(PASSWORD)
        self.page.keyboard.press("Enter")
        self.page.wait_for_url(f"**{DASHBOARD}/jobs/")

    def goto(self, path: str) -> Page:
        self.page.goto(path)
        return self.page

    def close(self) -> list[str]:
        self.context.close()
        return self.errors

    def photograph(self, name: str, directory: Path) -> list[str]:
        """Save a screenshot in each of `VIEWS`; return what is wider than the window."""
        wide = []
        for width, scheme in VIEWS:
            self.page.set_viewport_size({"width": width, "height": HEIGHT})
            self.page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
            wide += [f"{name} at {width}: {each}" for each in self.page.evaluate(OVERFLOW)]
            self.page.screenshot(path=directory / f"{name}-{width}-{scheme}.png", full_page=True, animations="disabled")
        return wide

    def _note(self, message: ConsoleMessage) -> None:
        is_expected = any(f"status of {status}" in message.text for status in self.expected)
        if message.type in {"error", "warning"} and not is_expected:
            self.errors.append(f"{message.text} ({message.location.get('url')})")
