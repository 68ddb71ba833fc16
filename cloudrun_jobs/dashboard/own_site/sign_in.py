"""Where users of the dashboard sign in and out."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlencode, urlsplit

from django.conf import global_settings, settings
from django.shortcuts import resolve_url
from django.urls import NoReverseMatch, Resolver404, resolve, reverse

if TYPE_CHECKING:
    from django.http import HttpRequest


def sign_in_url(request: HttpRequest, following: str) -> str | None:
    """Return the URL that signs in and then opens the path `following`; None if the project has none.

    It is `LOGIN_URL`. If that is Django's default and does not exist, or is a name that does not exist, it is the
    admin's.
    """
    try:
        url = resolve_url(settings.LOGIN_URL)
        if settings.LOGIN_URL == global_settings.LOGIN_URL:
            resolve(url)
    except (NoReverseMatch, Resolver404):
        if (found := _first_url("admin:login")) is None:
            return None
        url = found
    if urlsplit(url).netloc not in {"", request.get_host()}:
        following = request.build_absolute_uri(following)
    separator = "&" if urlsplit(url).query else "?"
    return f"{url}{separator}{urlencode({'next': following}, safe='/')}"


def sign_out_url() -> str | None:
    """Return the URL that signs out when a form is posted to it; None if the project has none."""
    return _first_url("logout", "admin:logout")


def _first_url(*names: str) -> str | None:
    """Return the URL of the first of these names that exists."""
    for name in names:
        try:
            return reverse(name)
        except NoReverseMatch:
            continue
    return None
