"""Notices for the next page of the dashboard, in the session: `django.contrib.messages` may be absent."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from cloudrun_jobs.dashboard.site import LIVE_HEADER, Level

if TYPE_CHECKING:
    from django.http import HttpRequest

KEY = "cloudrun_jobs_notices"
# A session in a cookie has room for about 4,000 bytes, and loses everything beyond them.
MAX_NOTICES = 3
MAX_CHARACTERS = 300


class Notice(NamedTuple):
    """A message, and its level."""

    level: str
    message: str


def add_notice(request: HttpRequest, level: Level, message: str) -> None:
    """Keep the notice for the next page that this session opens."""
    if (session := getattr(request, "session", None)) is None:
        return  # Users of a proxy's header need no session. The page shows the new state.
    text = str(message)
    if len(text) > MAX_CHARACTERS:
        text = f"{text[: MAX_CHARACTERS - 1]}…"
    # Plain lists and strings, for every serializer.
    session[KEY] = [*session.get(KEY, []), [str(level), text]][-MAX_NOTICES:]


def take_notices(request: HttpRequest) -> list[Notice]:
    """Return the notices and remove them. A request that shows no page to the user takes none."""
    session = getattr(request, "session", None)
    if session is None or request.method == "HEAD" or LIVE_HEADER in request.headers or KEY not in session:
        return []
    return [Notice(*notice) for notice in session.pop(KEY)]
