"""Cache the certificates that verify Google's ID tokens, for their max-age.

`google.oauth2.id_token` fetches them on every call: a request would wait for Google, and fail during its outages.
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Mapping
from functools import cache
from typing import Any

REFETCH_INTERVAL = 60.0  # seconds between two fetches while certificates are kept
RETRY_INTERVAL = 5.0  # seconds between two fetches while none are
FALLBACK_PERIOD = 24 * 3600.0  # seconds for which kept certificates serve while the server is unreachable
DEFAULT_MAX_AGE = 3600.0  # seconds
FETCH_TIMEOUT = 5.0  # seconds


class CertificatesUnavailable(Exception):
    """The certificates cannot be fetched, and none are kept."""


class Certificates:
    """The certificates at a URL, in PEM by key id."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._lock = threading.Lock()
        self._kept: Mapping[str, str] = {}
        self._fetched_at = self._fresh_until = self._tried_at = float("-inf")  # By the monotonic clock.

    def for_key(self, key_id: str) -> Mapping[str, str]:
        """Return the certificates, fetched anew if they have expired or have no such key.

        Raises `CertificatesUnavailable`.
        """
        with self._lock:
            now = time.monotonic()
            is_needed = now >= self._fresh_until or key_id not in self._kept
            if is_needed and now - self._tried_at >= (REFETCH_INTERVAL if self._kept else RETRY_INTERVAL):
                self._tried_at = now
                self._fetch(now)
            if not self._kept or now - self._fetched_at > FALLBACK_PERIOD:
                raise CertificatesUnavailable(f"{self._url} cannot be reached.")
            return self._kept

    def _fetch(self, now: float) -> None:
        try:
            certificates, max_age = _download(self._url)
        except (OSError, ValueError):
            return  # The kept ones serve for a while.
        self._kept, self._fetched_at, self._fresh_until = certificates, now, now + max_age


@cache
def certificates(url: str) -> Certificates:
    """Return the process's certificates of that URL."""
    return Certificates(url)


def _download(url: str) -> tuple[dict[str, str], float]:
    """Return the certificates, and for how many seconds they are valid."""
    from google.auth.exceptions import TransportError
    from google.auth.transport.requests import Request

    try:
        response = Request()(url, timeout=FETCH_TIMEOUT)
    except TransportError as error:
        raise OSError(str(error)) from error
    if response.status != 200:
        raise OSError(f"{url}: HTTP status {response.status}")
    found: Any = json.loads(response.data)
    if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
        raise ValueError(f"{url}: expected certificates by key id")
    max_age = re.search(r"\bmax-age=([0-9]{1,9})\b", response.headers.get("cache-control", ""))
    return found, float(max_age[1]) if max_age else DEFAULT_MAX_AGE
