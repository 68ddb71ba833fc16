"""Google's ID tokens, as the emulator signs them, and the certificates that verify them."""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.request import urlopen

import jwt
import pytest
from django.test import Client

from cloudrun_jobs.emulator import Emulator
from cloudrun_jobs.emulator.tokens import ALGORITHM, Tokens
from cloudrun_jobs.http import certificates
from cloudrun_jobs.http.certificates import Certificates, CertificatesUnavailable
from tests.http_api.conftest import configured

AUDIENCE = "https://web-abc.a.run.app"
EMAIL = "scheduler@acme.iam.gserviceaccount.com"


class Server:
    """Serves certificates, and counts how often."""

    def __init__(self) -> None:
        self.requests = 0
        self.status, self.body, self.headers = 200, {"a": "PEM"}, {"Cache-Control": "public, max-age=100"}
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server.requests += 1
                self.send_response(server.status)
                for name, value in server.headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(json.dumps(server.body).encode())

            def log_message(self, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/certs"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.stop()


ISSUER = "https://issuer.test"


@pytest.fixture(scope="module")
def tokens() -> Tokens:
    """The emulator's key, which takes a while to make."""
    return Tokens()


@pytest.fixture
def oidc(http: Client, settings: Any, server: Server, tokens: Tokens) -> Callable[..., Any]:
    """Call with a token of the emulator, changed by `claims`; return the response."""
    server.body = tokens.public_keys()
    accept(settings, ISSUER, server.url)

    def call(token: str | None = None, **claims: Any) -> Any:
        return get(http, token or signed(tokens, **claims))

    return call


def accept(settings: Any, issuer: str, certs_url: str) -> None:
    """Accept the tokens of an issuer, for reading."""
    oidc = {"audience": AUDIENCE, "emails": [EMAIL], "scopes": ["read"], "issuer": issuer, "certs_url": certs_url}
    settings.CLOUDRUN_JOBS = configured(OIDC=oidc)
    certificates.certificates.cache_clear()


def get(http: Client, token: str) -> Any:
    return http.get("/cloudrun_jobs/jobs/", headers={"authorization": f"Bearer {token}"})


def signed(tokens: Tokens, *, key_id: str | None = None, **claims: Any) -> str:
    """Return a token with that key's signature; a claim of None is left out."""
    now = int(time.time())
    given = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "email": EMAIL,
        "email_verified": True,
        "iat": now,
        "exp": now + 3600,
        **claims,
    }
    payload = {name: value for name, value in given.items() if value is not None}
    return jwt.encode(payload, tokens._private_key(), ALGORITHM, {"kid": key_id or tokens.key_id})


def test_cloud_schedulers_token_is_accepted(http: Client, settings: Any, cloudrun_emulator: Emulator) -> None:
    """The emulator signs it as Google does, and publishes the certificates."""
    accept(settings, cloudrun_emulator.http, f"{cloudrun_emulator.http}/oauth2/v1/certs")

    token = cloudrun_emulator.tokens.id_token(EMAIL, AUDIENCE, cloudrun_emulator.http)

    assert get(http, token).status_code == 200


def test_token_of_the_emulators_admin_api_is_accepted(
    http: Client, settings: Any, cloudrun_emulator: Emulator
) -> None:
    """For curl: an ID token with the audience of a service."""
    accept(settings, cloudrun_emulator.http, f"{cloudrun_emulator.http}/oauth2/v1/certs")
    body = json.dumps({"email": EMAIL, "audience": AUDIENCE}).encode()
    with urlopen(f"{cloudrun_emulator.http}/_emulator/token", data=body, timeout=30) as response:
        token = json.load(response)["id_token"]

    assert get(http, token).status_code == 200


def test_another_emulator_has_another_key(cloudrun_emulator: Emulator) -> None:
    """Verifiers keep keys by their id, and would reject the tokens of a restarted emulator."""
    assert Tokens().public_keys().keys() != cloudrun_emulator.tokens.public_keys().keys()


def test_token_of_the_account_is_accepted(oidc: Any) -> None:
    """Signature, issuer, audience, account and times are right."""
    assert oidc().status_code == 200


@pytest.mark.parametrize(
    "claims",
    [
        {"email": "other@acme.iam.gserviceaccount.com"},
        {"email": EMAIL.upper()},
        {"email": None},
        {"email": [EMAIL]},
        {"email_verified": False},
        {"email_verified": "true"},
        {"email_verified": None},
        {"aud": "https://other.a.run.app"},
        {"aud": None},
        {"iss": "https://accounts.example.com"},
        {"iss": "https://accounts.google.com"},
        {"iss": None},
        {"exp": 1},
        {"exp": None},
        {"exp": "soon"},
        {"iat": 2**40, "exp": 2**41},
        {"iat": None},
        {"key_id": "unknown"},
    ],
    ids=str,
)
def test_token_with_other_claims_is_rejected(oidc: Any, claims: dict[str, Any]) -> None:
    """Signature, issuer, audience, times, e-mail and its verification all count."""
    response = oidc(**claims)

    assert (response.status_code, response.json()["error"]["code"]) == (401, "unauthenticated")


def encoded(part: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode()


def test_forged_token_is_rejected(oidc: Any, tokens: Tokens) -> None:
    """Without the key, no token passes: unsigned, changed, or signed by another key."""
    header, payload, signature = signed(tokens).split(".")
    now = int(time.time())
    claims = {"iss": ISSUER, "aud": AUDIENCE, "email": EMAIL, "email_verified": True}
    body = encoded({**claims, "iat": now, "exp": now + 3601})
    forged = [
        f"{encoded({'alg': 'none', 'kid': 'emulator'})}.{body}.",
        f"{encoded({'alg': 'HS256', 'kid': 'emulator'})}.{body}.{signature}",
        f"{encoded({'alg': ['RS256'], 'kid': {}})}.{body}.{signature}",
        f"{header}.{body}.{signature}",
        f"{header}.{payload}.{signature[:-8]}AAAAAAAA",
        f"{header}.{payload}.",
        f"{header}.{encoded([])}.{signature}",
        f"{encoded([])}.{payload}.{signature}",
        f"{encoded(1)}.{payload}.{signature}",
        signed(Tokens()),
        "a.b.c",
        "..",
    ]

    assert [oidc(token).status_code for token in forged] == [401] * len(forged)


def test_caller_without_scopes_reads_nothing(oidc: Any, settings: Any) -> None:
    """By default, an OIDC caller has no scope."""
    del settings.CLOUDRUN_JOBS["HTTP"]["OIDC"]["scopes"]

    assert oidc().status_code == 403


def test_unreachable_certificates(oidc: Any, server: Server) -> None:
    """Kept certificates verify while their server is away; with none kept, nothing is let in."""
    assert oidc().status_code == 200
    server.status = 503
    assert oidc().status_code == 200

    certificates.certificates.cache_clear()
    response = oidc()

    assert (response.status_code, response.json()["error"]["code"]) == (503, "unavailable")
    assert response["Retry-After"]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The monotonic time of the certificates, in a list of one."""
    now = [1000.0]

    class Time:
        @staticmethod
        def monotonic() -> float:
            return now[0]

    monkeypatch.setattr(certificates, "time", Time)
    return now


def test_certificates_are_kept_by_their_max_age(server: Server, clock: list[float]) -> None:
    """They are fetched once, and again after their time."""
    kept = Certificates(server.url)
    for _ in range(5):
        assert kept.for_key("a") == {"a": "PEM"}
        clock[0] += 15
    assert server.requests == 1
    clock[0] += 30
    kept.for_key("a")
    assert server.requests == 2


def test_unknown_key_fetches_once_a_minute(server: Server, clock: list[float]) -> None:
    """Google may have a new key; a caller with forged key ids cannot cause many fetches."""
    kept = Certificates(server.url)
    kept.for_key("a")
    for _ in range(10):
        assert "b" not in kept.for_key("b")
        clock[0] += 5
    assert server.requests == 1
    clock[0] += 20
    server.body = {"b": "PEM"}
    assert kept.for_key("b") == {"b": "PEM"}
    assert server.requests == 2


@pytest.mark.parametrize("broken", [{"status": 500}, {"body": []}, {"body": {"a": 1}}], ids=str)
def test_kept_certificates_serve_for_a_day(server: Server, clock: list[float], broken: dict[str, Any]) -> None:
    """An error of the server does not lock callers out; after a day it does."""
    kept = Certificates(server.url)
    kept.for_key("a")
    vars(server).update(broken)
    for _ in range(24):
        clock[0] += 3500
        assert kept.for_key("a") == {"a": "PEM"}
    clock[0] += 3500
    with pytest.raises(CertificatesUnavailable):
        kept.for_key("a")


def test_failed_fetch_is_not_repeated_at_once(server: Server, clock: list[float]) -> None:
    """While no certificates are kept, requests do not wait for the server one after the other."""
    server.status = 503
    kept = Certificates(server.url)
    for _ in range(10):
        with pytest.raises(CertificatesUnavailable):
            kept.for_key("a")
    assert server.requests == 1
    clock[0] += 10
    server.status = 200
    assert kept.for_key("a") == {"a": "PEM"}
