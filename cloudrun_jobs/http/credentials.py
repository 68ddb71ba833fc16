"""The credentials that `CLOUDRUN_JOBS["HTTP"]` configures, valid from birth."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

from cloudrun_jobs import conf
from cloudrun_jobs.exceptions import InvalidSettings
from cloudrun_jobs.suggestions import did_you_mean

SCOPES = frozenset({"read", "run", "cancel"})
TRIGGER = "trigger"  # A part of "run", which callers with an ID token have in any case.

GOOGLE_ISSUERS = ("https://accounts.google.com", "accounts.google.com")
GOOGLE_CERTS_URL = "https://www.googleapis.com/oauth2/v1/certs"
LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})

RATE_PERIODS = {"s": 1, "m": 60, "h": 3600}  # seconds


@dataclass(frozen=True, slots=True)
class Token:
    """A token, by the SHA-256 digest of its value, and the header that carries it."""

    name: str
    header: str
    digest: bytes
    scopes: frozenset[str]
    commands: frozenset[str] | None  # None: all.
    expires: datetime | None


@dataclass(frozen=True, slots=True)
class OIDC:
    """The ID tokens that are accepted: Google's, for this audience and these service accounts."""

    audience: str
    emails: frozenset[str]
    scopes: frozenset[str]
    commands: frozenset[str] | None
    issuers: tuple[str, ...]
    certs_url: str


@dataclass(frozen=True, slots=True)
class Rate:
    """How many requests a credential may make in a period."""

    requests: int
    seconds: int


@dataclass(frozen=True, slots=True)
class Credentials:
    """Everything that `CLOUDRUN_JOBS["HTTP"]` says."""

    tokens: tuple[Token, ...] = ()
    oidc: OIDC | None = None
    session: bool = False
    rate: Rate | None = None
    has_public_health: bool = False

    @property
    def is_closed(self) -> bool:
        """True without a credential: then every URL answers 404."""
        return not (self.tokens or self.oidc or self.session)


def load() -> Credentials:
    """Return the configured credentials. Raises `InvalidSettings`, naming the key."""
    http = conf.load().http
    where = conf.setting_name("HTTP")
    reader = _Reader(where, http, {"TOKENS", "OIDC", "SESSION", "RATE", "HEALTH"})
    tokens = reader.get("TOKENS", list | tuple, "a list", ())
    names = [_token(f"{where}['TOKENS'][{number}]", token) for number, token in enumerate(tokens)]
    if repeated := {token.name for token in names if [each.name for each in names].count(token.name) > 1}:
        raise InvalidSettings(f"{where}['TOKENS']: several tokens have the name {min(repeated)!r}.")
    oidc = reader.get("OIDC", Mapping, "a dictionary", None)
    rate = reader.get("RATE", str, 'a string such as "60/m"', None)
    return Credentials(
        tokens=tuple(names),
        oidc=None if oidc is None else _oidc(f"{where}['OIDC']", oidc),
        session=reader.get("SESSION", bool, "True or False", False),
        rate=None if rate is None else _rate(reader, rate),
        has_public_health=_health(reader) == "public",
    )


class _Reader:
    """Reads one dictionary of the settings, and refuses unknown keys."""

    def __init__(self, where: str, values: Any, keys: Collection[str], required: Collection[str] = ()) -> None:
        if not isinstance(values, Mapping):
            raise InvalidSettings(f"{where}: expected a dictionary, got {type(values).__name__}.")
        for key in values:
            if key not in keys:
                raise InvalidSettings(f"{where}: unknown key {key!r}.", hint=did_you_mean(str(key), keys))
        for key in required:
            if key not in values:
                raise InvalidSettings(f"{where}: the key {key!r} is missing.")
        self.where, self.values = where, values

    def get(self, key: str, kind: Any, expected: str, default: Any) -> Any:
        """Return a value of this kind, or the default if the key is absent."""
        value = self.values.get(key, default)
        if key in self.values and not isinstance(value, kind):
            raise self.error(key, expected, value)
        return value

    def names(self, key: str, default: Collection[str] | None) -> frozenset[str] | None:
        """Return a collection of strings."""
        values = self.get(key, Sequence | frozenset | set, "a list of strings", default)
        if isinstance(values, str) or not all(isinstance(value, str) and value for value in values or ()):
            raise self.error(key, "a list of strings", values)
        return None if values is None else frozenset(values)

    def scopes(self) -> frozenset[str]:
        scopes = self.names("scopes", ()) or frozenset()
        if unknown := scopes - SCOPES:
            raise self.error("scopes", f"any of {', '.join(sorted(SCOPES))}", min(unknown))
        return scopes

    def error(self, key: str, expected: str, value: object) -> InvalidSettings:
        return InvalidSettings(f"{self.where}[{key!r}]: expected {expected}, got {value!r}.")


def _token(where: str, values: Any) -> Token:
    keys = {"name", "header", "sha256", "scopes", "commands", "expires"}
    reader = _Reader(where, values, keys, required=("name", "sha256", "scopes"))
    header = reader.get("header", str, "the name of a header", "Authorization")
    if not re.fullmatch(r"[!#$%&'*+.^`|~0-9A-Za-z-]+", header):  # Without "_", which servers drop.
        raise reader.error("header", "the name of a header, without underscores", header)
    digest = reader.get("sha256", str, "64 hexadecimal digits", "")
    if not re.fullmatch(r"[0-9a-fA-F]{64}", digest):
        # Not repeated in the message: it may be the token itself.
        raise InvalidSettings(
            f"{where}['sha256']: expected 64 hexadecimal digits.",
            hint="`manage.py cloudrun_jobs token` generates a token and its digest.",
        )
    return Token(
        name=reader.get("name", str, "a string", ""),
        header=header.lower(),
        digest=bytes.fromhex(digest),
        scopes=reader.scopes(),
        commands=reader.names("commands", None),
        expires=_expires(reader),
    )


def _expires(reader: _Reader) -> datetime | None:
    value = reader.get("expires", str | datetime, "a time such as '2027-01-01T00:00:00Z'", None)
    try:
        moment = datetime.fromisoformat(value) if isinstance(value, str) else value
    except ValueError:
        moment = value
    if moment is not None and (isinstance(moment, str) or moment.tzinfo is None):
        raise reader.error("expires", "a time with a UTC offset, such as '2027-01-01T00:00:00Z'", value)
    return moment


def _oidc(where: str, values: Any) -> OIDC:
    keys = {"audience", "emails", "scopes", "commands", "issuer", "certs_url"}
    reader = _Reader(where, values, keys, required=("audience", "emails"))
    emails = reader.names("emails", ())
    if not emails:
        raise reader.error("emails", "the e-mail addresses of service accounts", values["emails"])
    certs_url = reader.get("certs_url", str, "a URL", GOOGLE_CERTS_URL)
    if certs_url != GOOGLE_CERTS_URL and urlsplit(certs_url).hostname not in LOOPBACK:
        raise reader.error("certs_url", "a URL of this machine, for tests", certs_url)
    if "issuer" in values and certs_url == GOOGLE_CERTS_URL:
        raise InvalidSettings(f"{where}: 'issuer' is for tests, and needs a 'certs_url' of this machine.")
    audience = reader.get("audience", str, "a URL", "")
    if not audience:
        raise reader.error("audience", "the URL that callers request tokens for", audience)
    issuer = reader.get("issuer", str, "a URL", None)
    return OIDC(
        audience=audience,
        emails=emails,
        scopes=reader.scopes(),
        commands=reader.names("commands", None),
        issuers=GOOGLE_ISSUERS if issuer is None else (issuer,),
        certs_url=certs_url,
    )


def _rate(reader: _Reader, rate: str) -> Rate:
    found = re.fullmatch(r"([1-9][0-9]{0,8})/([smh])", rate)
    if found is None:
        raise reader.error("RATE", 'requests per second, minute or hour, such as "60/m"', rate)
    return Rate(int(found[1]), RATE_PERIODS[found[2]])


def _health(reader: _Reader) -> str:
    expected = '"closed" or "public"'
    value: str = reader.get("HEALTH", str, expected, "closed")
    if value not in {"closed", "public"}:
        raise reader.error("HEALTH", expected, value)
    return value
