"""The jobs for the partner's token, with a real partner server on this machine and secrets in memory."""

from __future__ import annotations

import time
import traceback
from collections.abc import Iterator
from datetime import UTC, datetime
from io import StringIO

import pytest
import time_machine
from django.core.management import call_command
from django.core.management.base import CommandError
from pytest_django import Settings

from cloudrun_jobs import secrets
from cloudrun_jobs.exceptions import SecretConflict, SecretDisabled, SecretNotFound
from partner import SECRET, api
from partner.server import Partner, serve


@pytest.fixture
def partner(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[Partner]:
    """A partner server, and a client with short pauses."""
    for name in ("FIRST_PAUSE_SECONDS", "LONGEST_PAUSE_SECONDS", "JITTER_SECONDS"):
        monkeypatch.setattr(api, name, 0.001)
    settings.CLOUDRUN_JOBS = {"ENVIRONMENT": "test", "SECRETS": {}}
    with serve() as partner:
        settings.PARTNER_URL = partner.url
        yield partner


@pytest.fixture
def saved(partner: Partner, monkeypatch: pytest.MonkeyPatch) -> str:
    """The partner's first token, saved."""
    save(partner.token, monkeypatch)
    return partner.token


def save(token: str, monkeypatch: pytest.MonkeyPatch, *args: str) -> str:
    """Save a token as `save_partner_token < file` does; return the output."""
    output = StringIO()
    monkeypatch.setattr("sys.stdin", StringIO(token))
    call_command("save_partner_token", *args, stdout=output)
    return output.getvalue()


def refresh() -> None:
    call_command("refresh_partner_token", stdout=StringIO())


def test_first_token_is_saved(partner: Partner, monkeypatch: pytest.MonkeyPatch) -> None:
    """The secret is created with the token, without the line break of a file; the token is not shown."""
    output = save(f"{partner.token}\n", monkeypatch)

    assert (secrets.read(SECRET), secrets.latest_version(SECRET)) == (partner.token, 1)
    assert output == "partner-token has version 1.\n"


def test_saved_token_is_replaced_only_on_demand(
    partner: Partner, saved: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A saved token is replaced only with --replace."""
    with pytest.raises(CommandError, match="partner-token already has a token"):
        save("another-token", monkeypatch)
    first = secrets.read(SECRET)
    save("another-token", monkeypatch, "--replace")

    assert (first, secrets.read(SECRET)) == (saved, "another-token")


@pytest.mark.parametrize("token", ["", "\n", "short", "two words", "line\nbreak", "naïve-token", "nul\0-token"])
def test_text_that_is_not_a_token_is_rejected(
    partner: Partner, monkeypatch: pytest.MonkeyPatch, token: str
) -> None:
    """An invalid token is not saved."""
    with pytest.raises(CommandError, match="Expected a token on stdin"):
        save(token, monkeypatch)

    with pytest.raises(SecretNotFound):
        secrets.read(SECRET)


@pytest.mark.usefixtures("saved")
def test_refresh_rotates_the_token(partner: Partner) -> None:
    """Each refresh gets a new token, which is the next version; only the newest two are enabled."""
    tokens = [partner.token]
    for _ in range(2):
        refresh()
        tokens.append(partner.token)

    assert (secrets.read(SECRET), len(set(tokens))) == (tokens[2], 3)
    assert secrets.read(f"{SECRET}:2") == tokens[1]
    with pytest.raises(SecretDisabled):
        secrets.read(f"{SECRET}:1")


@pytest.mark.parametrize("text", ["s3cret-token\n", "s3crèt-token", "s3cret-ключ"])
def test_secret_that_is_no_token_is_not_sent(partner: Partner, text: str) -> None:
    """If the saved text is not a token, the error does not show it."""
    secrets.update(SECRET, text, create=True)
    with pytest.raises(CommandError, match=r"Expected a token of .* Version 1 of partner-token stays") as caught:
        refresh()

    assert "s3c" not in "".join(traceback.format_exception(caught.value))
    assert partner.answers == []


def test_refresh_without_a_token_fails(partner: Partner) -> None:
    """The error names the secret, and the partner gets no request."""
    with pytest.raises(CommandError, match=r"partner-token: .* Save the first token: manage.py save_partner"):
        refresh()

    assert partner.answers == []


@pytest.mark.parametrize("status", [429, 500, 503])
def test_two_failures_are_repeated(partner: Partner, saved: str, status: int) -> None:
    """The third attempt succeeds."""
    partner.fail(status, times=2)
    refresh()

    assert partner.answers == [status, status, 200]
    assert secrets.read(SECRET) == partner.token != saved


def test_three_failures_leave_the_token(partner: Partner, saved: str) -> None:
    """The job fails after three attempts, and the next run works."""
    partner.fail(503, times=3)
    with pytest.raises(
        CommandError, match=r"The partner responded with 503\. Version 1 of partner-token stays in"
    ):
        refresh()
    after_failure = secrets.read(SECRET)
    refresh()

    assert after_failure == saved
    assert secrets.read(SECRET) == partner.token != saved


def test_retry_after_is_observed(partner: Partner, saved: str) -> None:
    """The next attempt waits as long as the partner asks."""
    partner.fail(429, Retry_After="1")
    started = time.monotonic()
    refresh()

    assert time.monotonic() - started >= 1
    assert partner.answers == [429, 200]


def test_long_pause_is_left_to_the_next_run(partner: Partner, saved: str) -> None:
    """If the partner asks for an hour, the job ends instead of waiting or asking again."""
    partner.fail(429, Retry_After="3600")
    with pytest.raises(CommandError, match="The partner responded with 429"):
        refresh()

    assert (partner.answers, secrets.read(SECRET)) == ([429], saved)


@pytest.mark.parametrize(
    ("header", "pause"),
    [
        ("0", 0),
        (" 7 ", 7),
        ("Thu, 26 Nov 2026 13:00:00 GMT", 3600),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0),
        ("Wed, 21 Oct 2015 07:28:00 -0000", 0),
    ],
)
def test_retry_after_forms(header: str, pause: float) -> None:
    """The header is a number of seconds or a date; a date in the past is no pause."""
    with time_machine.travel(datetime(2026, 11, 26, 12, tzinfo=UTC), tick=False):
        assert api._seconds(header) == pause


@pytest.mark.parametrize("header", [None, "", "soon", "-1", "1.5", "9" * 400, "Wed, 99 Oct 2015 07:28:00 GMT"])
def test_invalid_retry_after_is_ignored(header: str | None) -> None:
    """The back-off sets the pause if the header is invalid."""
    assert api._seconds(header) is None


@pytest.mark.parametrize("status", [302, 400, 401, 403, 404])
def test_refusal_is_not_repeated(partner: Partner, saved: str, status: int) -> None:
    """A rejected request is not retried, and a redirect is not followed: it would send the token elsewhere."""
    partner.fail(status, Location=f"{partner.url}/token/refresh")
    with pytest.raises(CommandError, match=f"The partner responded with {status}"):
        refresh()

    assert (partner.answers, secrets.read(SECRET)) == ([status], saved)


def test_stale_token_is_refused(partner: Partner, saved: str) -> None:
    """If the token was rotated elsewhere, the job fails at once."""
    partner.refresh(saved, "by hand")
    with pytest.raises(CommandError, match="The partner responded with 401"):
        refresh()

    assert (partner.answers, secrets.read(SECRET)) == ([401], saved)


def test_token_that_was_saved_in_the_meantime_stays(
    partner: Partner, saved: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A token that is saved while the job waits for the partner is not replaced."""
    refresh_token = api.refresh

    def wait(url: str, token: str, key: str) -> str:
        save("saved-meanwhile", monkeypatch, "--replace")
        return refresh_token(url, token, key)

    monkeypatch.setattr(api, "refresh", wait)
    with pytest.raises(SecretConflict):
        refresh()

    assert (secrets.read(SECRET), partner.answers) == ("saved-meanwhile", [200])


@pytest.mark.parametrize(
    "body",
    ["", "null", "[]", "{}", '{"token": 7}', '{"token": ""}', '{"token": "a b c d"}', "<html>", "x" * 70_000],
)
def test_response_without_a_token_is_refused(partner: Partner, saved: str, body: str) -> None:
    """A response without a token leaves the old token in force."""
    partner.fail(200, body=body)
    with pytest.raises(CommandError, match="Expected a response"):
        refresh()

    assert secrets.read(SECRET) == saved


def test_request_that_hangs_is_repeated(partner: Partner, saved: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A request without a response is repeated; its late rotation has the same result."""
    monkeypatch.setattr(api, "TIMEOUT_SECONDS", 0.2)
    partner.hang()
    refresh()
    rotated = partner.token
    partner.release.set()
    refresh()

    assert saved != rotated != partner.token == secrets.read(SECRET)


def test_hanging_partner_fails_the_job(partner: Partner, saved: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """After three attempts the job fails, and the old token stays; the next run works."""
    monkeypatch.setattr(api, "TIMEOUT_SECONDS", 0.1)
    partner.hang(times=3)
    with pytest.raises(CommandError, match="The partner did not respond: timed out"):
        refresh()
    after_failure = secrets.read(SECRET)
    partner.release.set()
    monkeypatch.setattr(api, "TIMEOUT_SECONDS", 10)
    refresh()

    assert after_failure == saved
    assert secrets.read(SECRET) == partner.token != saved


@pytest.mark.parametrize("url", ["", "http://partner.example", "ftp://127.0.0.1", "file:///etc/passwd", "https"])
def test_token_is_sent_only_encrypted(settings: Settings, partner: Partner, saved: str, url: str) -> None:
    """A URL without TLS is accepted only for this machine."""
    settings.PARTNER_URL = url
    with pytest.raises(CommandError, match="Expected an https URL of the partner"):
        refresh()


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "http://localhost:1/prefix"])
def test_absent_partner_fails_the_job(settings: Settings, partner: Partner, saved: str, url: str) -> None:
    """The message says that the partner did not respond."""
    settings.PARTNER_URL = url
    with pytest.raises(CommandError, match="The partner did not respond"):
        refresh()

    assert secrets.read(SECRET) == saved
