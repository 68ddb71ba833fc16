"""What `CLOUDRUN_JOBS["HTTP"]` accepts, and the rate limit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from cloudrun_jobs.exceptions import InvalidSettings
from cloudrun_jobs.http import credentials, rate
from cloudrun_jobs.http.credentials import Rate
from tests.http_api.conftest import configured
from tests.servers.process import free_port

DIGEST = "0" * 64
TOKEN = {"name": "a", "sha256": DIGEST, "scopes": ["read"]}
OIDC = {"audience": "https://a", "emails": ["a@b"]}


@pytest.mark.parametrize(
    ("http", "message"),
    [
        ({"TOKEN": []}, "unknown key 'TOKEN'.*Did you mean 'TOKENS'"),
        ({"TOKENS": {}}, r"\['TOKENS'\]: expected a list, got"),
        ({"TOKENS": ["secret"]}, r"\['TOKENS'\]\[0\]: expected a dictionary, got str"),
        ({"TOKENS": [{**TOKEN, "token": "x"}]}, "unknown key 'token'"),
        ({"TOKENS": [{"name": "a", "scopes": []}]}, "the key 'sha256' is missing"),
        ({"TOKENS": [{**TOKEN, "sha256": "the-token"}]}, "expected 64 hexadecimal digits.*cloudrun_jobs token"),
        ({"TOKENS": [{**TOKEN, "scopes": ["write"]}]}, "expected any of cancel, read, run, got 'write'"),
        ({"TOKENS": [{**TOKEN, "scopes": "read"}]}, "expected a list of strings"),
        ({"TOKENS": [{**TOKEN, "commands": "echo"}]}, "expected a list of strings"),
        ({"TOKENS": [{**TOKEN, "commands": [7]}]}, "expected a list of strings"),
        ({"TOKENS": [{**TOKEN, "header": "x token"}]}, "expected the name of a header"),
        ({"TOKENS": [{**TOKEN, "header": "x_token"}]}, "without underscores"),
        ({"TOKENS": [{**TOKEN, "expires": "2027-01-01"}]}, "expected a time with a UTC offset"),
        ({"TOKENS": [{**TOKEN, "expires": "never"}]}, "expected a time with a UTC offset"),
        ({"TOKENS": [{**TOKEN, "expires": 7}]}, "expected a time"),
        ({"TOKENS": [TOKEN, {**TOKEN, "sha256": "1" * 64}]}, "several tokens have the name 'a'"),
        ({"OIDC": {"audience": "https://a"}}, "the key 'emails' is missing"),
        ({"OIDC": {**OIDC, "emails": []}}, "expected the e-mail addresses"),
        ({"OIDC": {**OIDC, "audience": ""}}, "expected the URL"),
        ({"OIDC": {**OIDC, "certs_url": "https://example.com/certs"}}, "expected a URL of this machine"),
        ({"OIDC": {**OIDC, "issuer": "https://example.com"}}, "'issuer' is for tests"),
        ({"SESSION": "yes"}, "expected True or False"),
        ({"RATE": 60}, 'such as "60/m"'),
        ({"HEALTH": "open"}, 'expected "closed" or "public", got \'open\''),
        ({"HEALTH": True}, 'expected "closed" or "public", got True'),
        ({"RATE": "60"}, "requests per second, minute or hour"),
        ({"RATE": "0/m"}, "requests per second, minute or hour"),
    ],
    ids=str,
)
def test_invalid_setting_is_named(settings: Any, http: Any, message: str) -> None:
    """The error names the key, what was expected and what came; never a token."""
    settings.CLOUDRUN_JOBS = {"HTTP": http}

    with pytest.raises(InvalidSettings, match=message) as caught:
        credentials.load()

    assert "CLOUDRUN_JOBS['HTTP']" in str(caught.value)
    assert "the-token" not in str(caught.value)


def test_requests_beyond_the_rate_are_rejected(
    call: Callable[..., Any], settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each credential has its own count, and a new one in the next period."""
    now = [1_000_020.0]
    monkeypatch.setattr(rate.time, "time", lambda: now[0])
    settings.CLOUDRUN_JOBS = configured(RATE="3/m")

    answers = [call("GET", "jobs/") for _ in range(5)]

    assert [answer.status_code for answer in answers] == [200, 200, 200, 429, 429]
    assert answers[-1].json()["error"]["code"] == "rate_limited"
    assert answers[-1]["Retry-After"] == "60"
    assert call("GET", "jobs/", token="reader").status_code == 200
    now[0] += 60
    assert call("GET", "jobs/").status_code == 200


def test_long_name_has_a_count_for_each_period(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name may be longer than the keys of memcached."""
    now = [1_000_020.0]
    monkeypatch.setattr(rate.time, "time", lambda: now[0])

    for _ in range(3):
        rate.check_rate("n" * 300, Rate(1, 60))
        now[0] += 60


def test_names_have_their_own_counts() -> None:
    """Neither a common beginning nor a separator confuses two of them."""
    for name in ("n" * 300 + "1", "n" * 300 + "2", "a:1", "a"):
        rate.check_rate(name, Rate(1, 3600))


def test_requests_pass_while_the_cache_is_unavailable(
    call: Callable[..., Any], settings: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """The rate limit is not an authentication; each request that is not counted is logged."""
    settings.CLOUDRUN_JOBS = configured(RATE="1/h")
    location = f"redis://127.0.0.1:{free_port()}"
    settings.CACHES = {"default": {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": location}}

    assert [call("GET", "jobs/").status_code for _ in range(2)] == [200, 200]
    assert [call("GET", "jobs/", token=token).status_code for token in ("", "expired")] == [401, 401]
    assert [
        (record.action, record.caller, record.levelname)
        for record in caplog.records
        if record.name == "cloudrun_jobs"
    ] == [("rate_limit_failed", "token all", "WARNING")] * 2


def test_evicted_count_begins_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache may drop the count at any time."""

    class Evicting:
        counts: dict[str, int] = {}

        def add(self, key: str, value: int, timeout: int) -> bool:
            return False

        def incr(self, key: str) -> int:
            raise ValueError(key)

        def set(self, key: str, value: int, timeout: int) -> None:
            self.counts[key] = value

    monkeypatch.setattr(rate, "cache", Evicting())
    rate.check_rate("a", Rate(1, 60))

    assert list(Evicting.counts.values()) == [1]
