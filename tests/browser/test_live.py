"""live.js: what it updates, what it leaves alone, and when it stops."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from playwright.sync_api import expect

from tests.browser.sample import PATH, Sample
from tests.browser.site import Site
from tests.browser.visitor import Visitor

POLLED = '<div id="part" data-live-every="10">{}</div>'
FOLLOWED = '<div id="part" data-live="/sample/events/">{}</div>'
STATUS = '<p class="status">{}</p>'
EVENT = "event: {}\nid: {}\ndata: {{}}\n\n"


@pytest.fixture
def sample(site: Site, visit: Callable[..., Visitor]) -> Callable[[str], Sample]:
    """Open a page with this content."""

    def sample(content: str) -> Sample:
        visitor = visit(site)
        visitor.expected = {403, 404, 410, 429, 500, 503}
        return Sample(visitor, content)

    return sample


def shows(sample: Sample, text: str) -> None:
    expect(sample.page.locator("#part")).to_contain_text(text)


def test_marked_part_is_updated(sample: Callable[[str], Sample]) -> None:
    """What is marked changes, what is not stays."""
    page = sample(POLLED.format("first") + '<p id="other">first</p>')
    page.update(POLLED.format("second") + '<p id="other">second</p>')

    shows(page, "second")
    assert page.page.locator("#other").inner_text() == "first"
    assert page.state == "live"


ROWS = "".join(f'<tr><td><a href="/sample/{number}/">{number}</a></td></tr>' for number in range(30))
DETAILS = '<details id="more"><summary id="summary">More</summary><p id="text">Some text to select</p></details>'
TABLE = f'<div class="scroll" id="box"><table><tbody>{{}}{ROWS}</tbody></table></div>'
TALL = "<style>#box { height: 60px; overflow: auto }</style>"


def test_update_keeps_what_the_user_has_done(sample: Callable[[str], Sample]) -> None:
    """Focus, opened details, scroll position and selected text survive an update that inserts a row."""
    page = sample(POLLED.format("first" + DETAILS + TABLE.format("")))
    page.page.locator("summary").click()
    page.page.evaluate("document.querySelector('#box').style.cssText = 'height: 60px; overflow: auto'")
    page.page.evaluate("document.querySelector('#box').scrollTop = 77")
    page.page.evaluate("getSelection().selectAllChildren(document.querySelector('#text'))")
    page.page.locator("a[href='/sample/7/']").evaluate("each => each.focus({preventScroll: true})")
    row = '<tr><td><a href="/sample/new/">new</a></td></tr>'
    page.update(POLLED.format("second" + DETAILS + TABLE.format(row)))

    shows(page, "second")
    expect(page.page.locator("#box")).to_contain_text("new")
    assert page.page.evaluate("document.activeElement.getAttribute('href')") == "/sample/7/"
    assert page.page.evaluate("getSelection().toString()") == "Some text to select"
    assert page.page.locator("details").get_attribute("open") is not None
    assert page.page.locator("tr").first.inner_text() == "new"


def test_pause_stops_requests(sample: Callable[[str], Sample]) -> None:
    """The button, with the keyboard, stops and resumes updates; it says whether it is pressed."""
    page = sample(POLLED.format("first"))
    button = page.page.get_by_role("button", name="Pause")
    button.press("Enter")
    page.content, before = POLLED.format("second"), page.requests
    page.wait(100)

    assert (page.requests, page.state, button.get_attribute("aria-pressed")) == (before, "paused", "true")

    button.press("Space")
    page.update(POLLED.format("second"), seconds=1)
    shows(page, "second")

    assert (page.state, button.get_attribute("aria-pressed")) == ("live", "false")


@pytest.mark.parametrize("event", ["visibilitychange", "pagehide"])
def test_hidden_page_makes_no_requests(sample: Callable[[str], Sample], event: str) -> None:
    """A page in the background or in the back-forward cache rests, and is updated when it is shown again."""
    page = sample(POLLED.format("first"))
    page.page.evaluate("Object.defineProperty(document, 'visibilityState', {value: 'hidden', configurable: true})")
    dispatch(page, event)
    before = page.requests
    page.wait(100)

    assert page.requests == before

    page.page.evaluate("delete document.visibilityState")
    dispatch(page, {"pagehide": "pageshow"}.get(event, event))
    page.update(POLLED.format("second"), seconds=1)

    shows(page, "second")


def dispatch(sample: Sample, event: str) -> None:
    target = "window" if event.startswith("page") else "document"
    sample.page.evaluate(f"{target}.dispatchEvent(new Event('{event}'))")


@pytest.mark.parametrize("status", [403, 404, 410])
def test_refusal_stops_updates(sample: Callable[[str], Sample], status: int) -> None:
    """When the user may no longer see the page, or it is gone, the page stays as it is and says so."""
    page = sample(POLLED.format("first"))
    page.status = status
    page.update("gone")
    expect(page.page.locator(".live-state")).to_have_text("stopped")
    before = page.requests
    page.wait(100)

    assert (page.requests, page.announced) == (before, "stopped")
    shows(page, "first")


def test_sign_in_page_stops_updates(sample: Callable[[str], Sample]) -> None:
    """The page does not become that of the sign-in, to which a signed-out user is redirected."""
    page = sample(POLLED.format("first"))
    page.page.unroute(f"**{PATH}")
    page.page.route(f"**{PATH}", lambda route: route.fulfill(status=302, headers={"Location": "/admin/login/"}))
    page.wait_for_state("stopped")

    shows(page, "first")


@pytest.mark.parametrize(("status", "headers"), [(503, {}), (500, {}), (429, {"Retry-After": "40"})])
def test_failure_is_tried_again(sample: Callable[[str], Sample], status: int, headers: dict[str, str]) -> None:
    """A server that is down, or that limits the rate, is asked again later."""
    page = sample(POLLED.format("first"))
    page.status, page.headers = status, headers
    page.update(POLLED.format("second"))
    page.wait_for_state("reconnecting")
    page.status = 200
    page.wait_for_state("live")

    shows(page, "second")


def test_event_updates_the_page(sample: Callable[[str], Sample]) -> None:
    """An event of the stream fetches the page; the new status is announced, once; the end closes the stream."""
    page = sample(FOLLOWED.format(STATUS.format("running")))
    page.events = "retry: 1000\n" + EVENT.format("status", 1)
    page.update(FOLLOWED.format(STATUS.format("failing")), seconds=1)
    shows(page, "failing")

    assert page.announced == "failing"

    page.events = EVENT.format("end", 2)
    page.update('<div id="part">' + STATUS.format("failed") + "</div>", seconds=1)
    shows(page, "failed")
    expect(page.page.locator(".live-state")).to_have_text("ended")
    before = page.requests, page.streams
    page.wait(100)

    assert (page.requests, page.streams) == before
    assert page.announced == "failed"


def test_part_that_is_gone_is_left(sample: Callable[[str], Sample]) -> None:
    """A part that the page no longer has stays as it was; the others are updated."""
    other = '<div id="other" data-live-every="5">{}</div>'
    page = sample(POLLED.format("first") + other.format("one"))
    page.update(other.format("two"), seconds=5)

    expect(page.page.locator("#other")).to_have_text("two")
    shows(page, "first")
