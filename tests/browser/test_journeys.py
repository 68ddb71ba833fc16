"""What people do with the pages: start, watch and cancel a run, in both skins."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.browser.records import RUNNING
from tests.browser.site import Site
from tests.browser.visitor import ADMIN, DASHBOARD, Visitor

JOBS = {"dashboard": f"{DASHBOARD}/jobs/", "admin": f"{ADMIN}/job/"}
RUNS = {"dashboard": f"{DASHBOARD}/runs/", "admin": f"{ADMIN}/jobrun/"}
# A container starts, on a machine with other work.
SECONDS = 60_000


@pytest.fixture(params=JOBS)
def skin(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def gate(tmp_path: Path) -> Path:
    """Return a file that the last step of a run waits for."""
    return tmp_path / "gate"


def start(visitor: Visitor, skin: str, steps: str = "3", until: Path | str = "") -> Page:
    """Start a run of the job `walk` with its form."""
    page = visitor.goto(f"{JOBS[skin]}walk/start/")
    page.get_by_label("Steps").fill(steps)
    page.get_by_label("Until").fill(str(until))
    page.get_by_role("button", name="Run now").click()
    return page


def status(page: Page) -> Locator:
    return page.locator("#run .status").first


def test_run_is_watched_to_its_end(site: Site, visit: Callable[..., Visitor], skin: str, gate: Path) -> None:
    """The form starts a run, whose page shows progress and outcome without being loaded again."""
    page = start(visit(site), skin, until=gate)
    expect(page.get_by_text("The run has been requested.")).to_be_visible()
    page.evaluate("document.body.dataset.loaded = 'once'")
    expect(page.locator("#run")).to_contain_text("step 3", timeout=SECONDS)
    expect(status(page)).to_have_text("running")
    gate.touch()
    expect(status(page)).to_have_text("succeeded", timeout=SECONDS)

    expect(page.locator(".live-state")).to_have_text("The run has ended. There are no more updates.")
    expect(page.get_by_role("button", name="Cancel the run")).to_have_count(0)
    assert page.evaluate("document.body.dataset.loaded") == "once"


def test_run_is_cancelled(site: Site, visit: Callable[..., Visitor], skin: str, gate: Path) -> None:
    """The button cancels a run, and its page shows the end."""
    page = start(visit(site), skin, until=gate)
    expect(status(page)).to_have_text("running", timeout=SECONDS)
    page.get_by_role("button", name="Cancel the run").click()

    expect(status(page)).to_have_text("cancelled", timeout=SECONDS)
    expect(page.get_by_role("button", name="Cancel the run")).to_have_count(0)


def test_invalid_value_is_shown_at_its_field(site: Site, visit: Callable[..., Visitor], skin: str) -> None:
    """The parser's error is beside the field, which keeps the value; nothing is started."""
    page = visit(site).goto(f"{JOBS[skin]}everything/start/")
    page.get_by_label("Source").fill("a source")
    shop = page.get_by_label("Shop")
    shop.fill("1\nsecond")
    page.get_by_role("button", name="Run now").click()

    expect(page.get_by_role("alert")).to_contain_text("No run was started.")
    expect(shop).to_have_value("1\nsecond")
    expect(shop).to_have_attribute("aria-invalid", "true")
    expect(page.locator(".errorlist")).to_contain_text("second")

    page.get_by_role("alert").get_by_role("link", name="Shop").click()

    expect(shop).to_be_focused()


def test_reader_cannot_start_or_cancel(site: Site, visit: Callable[..., Visitor], skin: str) -> None:
    """Without the permissions there is no button, and the page behind it is refused."""
    visitor = visit(site, "reader")
    visitor.expected = {403}

    for path in (JOBS[skin], f"{JOBS[skin]}walk/", f"{RUNS[skin]}{RUNNING}/"):
        buttons = visitor.goto(path).locator(".cloudrun-jobs").get_by_role("button")
        assert set(buttons.all_inner_texts()) <= {"Pause updates", "Compare with Google Cloud"}
        assert visitor.page.get_by_role("link", name="Run now").count() == 0
    assert visitor.page.goto(f"{JOBS[skin]}walk/start/").status == 403  # type: ignore[union-attr]


def reach(page: Page, target: Locator) -> None:
    """Press Tab until the target has the focus."""
    for _ in range(100):
        page.keyboard.press("Tab")
        if target.evaluate("each => each === document.activeElement"):
            return
    pytest.fail(f"{target} cannot be reached with the keyboard.")


def test_keyboard_is_enough(site: Site, visit: Callable[..., Visitor], skin: str, gate: Path) -> None:
    """A job is found, started, watched and cancelled with the keyboard alone."""
    page = visit(site).goto(JOBS[skin])
    reach(page, page.get_by_role("link", name="Run now walk"))
    page.keyboard.press("Enter")
    reach(page, page.get_by_label("Steps"))
    page.keyboard.type("2")
    reach(page, page.get_by_label("Until"))
    page.keyboard.type(str(gate))
    reach(page, page.get_by_role("button", name="Run now"))
    page.keyboard.press("Enter")
    expect(status(page)).to_have_text("running", timeout=SECONDS)
    reach(page, page.get_by_role("button", name="Pause updates"))
    page.keyboard.press("Space")
    expect(page.locator(".live-state")).to_have_text("Updates are paused.")
    page.keyboard.press("Space")
    reach(page, page.get_by_role("button", name="Cancel the run"))
    page.keyboard.press("Enter")

    expect(status(page)).to_have_text("cancelled", timeout=SECONDS)


def test_page_survives_a_restart_of_the_server(site: Site, visit: Callable[..., Visitor], gate: Path) -> None:
    """A page that is open while the server restarts shows what happened meanwhile."""
    visitor = visit(site)
    page = start(visitor, "dashboard", until=gate)
    expect(status(page)).to_have_text("running", timeout=SECONDS)
    site.stop()
    gate.touch()
    site.start()

    expect(status(page)).to_have_text("succeeded", timeout=SECONDS)
    visitor.errors.clear()  # Of requests to the server that was down.
