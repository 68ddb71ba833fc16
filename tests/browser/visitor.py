"""A session in the browser."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from tests.browser.records import PASSWORD
from tests.browser.site import Site

if TYPE_CHECKING:
    from playwright.sync_api import Browser, ConsoleMessage, Page

DASHBOARD, ADMIN = "/cloudrun_jobs/dashboard", "/admin/cloudrun_jobs"
HEIGHT = 900
# What is beyond the right edge of the window, if the page can be scrolled to it.
OVERFLOW = """() => {
  const width = document.documentElement.clientWidth;
  if (Math.max(document.documentElement.scrollWidth, document.body.scrollWidth) <= width) return [];
  const beyond = each => each.getBoundingClientRect().right > width + 1;
  const all = [...document.querySelectorAll('body *')].filter(beyond);
  const found = all.filter(each => !each.closest('.scroll, pre'));
  return found.map(each => `${each.tagName}#${each.id}.${each.className}`).slice(0, 5);
}"""


class Visitor:
    """A page in a session of its own, and the errors in its console."""

    def __init__(self, browser: Browser, site: Site, language: str = "en", **options: Any) -> None:
        self.context = browser.new_context(base_url=site.url, locale=language, **options)
        self.context.set_default_timeout(20_000)
        self.page: Page = self.context.new_page()
        self.errors: list[str] = []
        self.expected: set[int] = set()  # Statuses of responses, which the console names too.
        self.page.on("console", self._note)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))

    def sign_in(self, user: str) -> None:
        """Sign in on the page that the dashboard redirects to: the admin's."""
        self.page.goto(f"{DASHBOARD}/")
        self.page.locator("[name=username]").fill(user)
        self.page.locator("[name=password]").fill(PASSWORD)
        self.page.keyboard.press("Enter")
        self.page.wait_for_url(lambda url: urlsplit(url).path.startswith(DASHBOARD))

    def goto(self, path: str) -> Page:
        self.page.goto(path)
        return self.page

    def close(self) -> list[str]:
        self.context.close()
        return self.errors

    def photograph(self, name: str, directory: Path, views: Iterable[tuple[int, str]]) -> list[str]:
        """Save a screenshot at each width and in each colour scheme; return what is wider than the window."""
        wide = []
        for width, scheme in views:
            self.page.set_viewport_size({"width": width, "height": HEIGHT})
            self.page.emulate_media(color_scheme=scheme)
            wide += [f"{name} at {width}: {each}" for each in self.page.evaluate(OVERFLOW)]
            path = directory / f"{name}-{width}-{scheme}.png"
            self.page.screenshot(path=path, full_page=True, animations="disabled")
        return wide

    def _note(self, message: ConsoleMessage) -> None:
        is_expected = any(f"status of {status}" in message.text for status in self.expected)
        if message.type in {"error", "warning"} and not is_expected:
            self.errors.append(f"{message.text} ({message.location.get('url')})")
