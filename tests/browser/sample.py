"""A page whose content a test changes while it is open, with the script and the styles of the site."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.browser.visitor import Visitor
from tests.waiting import wait_for

if TYPE_CHECKING:
    from playwright.sync_api import Page, Route

PATH = "/sample/"
FRAME = """<!doctype html><html lang="en"><head><title>Sample</title>
<link rel="stylesheet" href="/static/cloudrun_jobs/pages.css">
<script src="/static/cloudrun_jobs/live.js" defer></script></head>
<body><main class="cloudrun-jobs"><h1>Sample</h1>{content}</main>
<template id="live-control"><div class="live">
<button type="button" class="live-pause" aria-pressed="false">Pause</button>
<span class="live-state" data-live="live" data-paused="paused" data-reconnecting="reconnecting" data-ended="ended"
data-stopped="stopped"></span><span role="status"></span></div></template></body></html>"""


class Sample:
    """The server of the page: the test sets what it answers, and the browser's clock."""

    def __init__(self, visitor: Visitor, content: str) -> None:
        self.page: Page = visitor.page
        self.content, self.status = content, 200
        self.headers: dict[str, str] = {}
        self.events = ""
        self.requests = self.streams = 0
        self.page.route(f"**{PATH}", self._serve)
        self.page.route(f"**{PATH}events/", self._stream)
        self.page.clock.install()
        self.page.goto(PATH)

    def wait(self, seconds: float) -> None:
        """Let the time of the page pass, and the requests that it makes meanwhile."""
        self.page.clock.run_for(round(seconds * 1000))

    def update(self, content: str, seconds: float = 10) -> None:
        """Change the content, and let the page poll it."""
        self.content, before = content, self.requests
        while self.requests == before:
            self.wait(seconds)

    def wait_for_state(self, state: str) -> None:
        """Let the time of the page pass until it shows this state."""
        wait_for(lambda: self._state_after(1) == state)

    def _state_after(self, seconds: float) -> str:
        self.wait(seconds)
        return self.state

    @property
    def state(self) -> str:
        return str(self.page.locator(".live-state").inner_text())

    @property
    def announced(self) -> str:
        return str(self.page.locator("[role=status]").inner_text())

    def _serve(self, route: Route) -> None:
        self.requests += 1
        body = FRAME.format(content=self.content)
        route.fulfill(status=self.status, body=body, content_type="text/html", headers=self.headers)

    def _stream(self, route: Route) -> None:
        self.streams += 1
        headers: Any = {"Cache-Control": "no-store"}
        route.fulfill(body=self.events, content_type="text/event-stream", headers=headers)
