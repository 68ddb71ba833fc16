"""The clients of BigQuery and Cloud Storage, with limits on retries and timeouts.

By default, BigQuery's client retries a request for ten minutes, and waits forever for each response.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any


@dataclass(frozen=True, slots=True)
class Limits:
    """Time limits in seconds."""

    request: float = 15.0  # One HTTP request: to connect, and for each read of the response.
    retries: float = 60.0  # One call: no retry starts later, so the call ends within `retries + request`.
    extract: float = 3000.0  # One extract job.
    poll: float = 5.0  # Between two queries of an extract job's state; the first queries come sooner.


class ExportFailed(Exception):
    """A table was not exported."""


class Clients:
    """Both clients, created when first used: importing them takes a second."""

    def __init__(self, project: str = "", limits: Limits = Limits()) -> None:
        self._project = project or None
        self.limits = limits

    @cached_property
    def bigquery(self) -> Any:
        import google.cloud.bigquery as bigquery
        from google.auth.credentials import AnonymousCredentials

        # The storage client needs no credentials either if STORAGE_EMULATOR_HOST is set.
        credentials = AnonymousCredentials() if os.environ.get("BIGQUERY_EMULATOR_HOST") else None
        return bigquery.Client(project=self._project, credentials=credentials)

    @cached_property
    def storage(self) -> Any:
        import google.cloud.storage as storage

        # Otherwise a thread of this client reads the bucket's metadata for traces, which needs another role.
        os.environ.setdefault("DISABLE_GCS_PYTHON_CLIENT_OTEL_BUCKET_METADATA", "true")
        return storage.Client(project=self._project)

    @property
    def project(self) -> str:
        return str(self.bigquery.project)

    @cached_property
    def bigquery_options(self) -> dict[str, Any]:
        """The arguments of each call of BigQuery's client."""
        import google.cloud.bigquery as bigquery

        return self._options(bigquery.DEFAULT_RETRY)

    @cached_property
    def storage_options(self) -> dict[str, Any]:
        """The arguments of each call of Cloud Storage's client."""
        from google.cloud.storage.retry import DEFAULT_RETRY

        return self._options(DEFAULT_RETRY)

    def _options(self, retry: Any) -> dict[str, Any]:
        retry = retry.with_timeout(self.limits.retries).with_delay(initial=0.5, maximum=10.0, multiplier=2.0)
        return {"retry": retry, "timeout": self.limits.request}

    def until_found(self, call: Callable[[], Any]) -> Any:
        """Retry `call` until it does not raise NotFound, within the time for retries."""
        from google.api_core import exceptions, retry

        found = retry.Retry(
            predicate=retry.if_exception_type(exceptions.NotFound), initial=0.2, timeout=self.limits.retries
        )
        return found(call)()


@contextmanager
def failing_as(subject: str) -> Iterator[None]:
    """Turn every error of the clients into an `ExportFailed` that names the subject."""
    from google.api_core.exceptions import GoogleAPIError
    from google.auth.exceptions import GoogleAuthError
    from google.cloud.storage.exceptions import DataCorruption, InvalidResponse
    from requests import RequestException

    try:
        yield
    except (GoogleAPIError, GoogleAuthError, InvalidResponse, DataCorruption, RequestException) as error:
        raise ExportFailed(f"{subject}: {error}") from error
