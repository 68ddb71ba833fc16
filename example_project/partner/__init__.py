"""A job that refreshes a token of a partner's API, and the client of the API."""

from __future__ import annotations

SECRET = "partner-token"  # The name in Secret Manager.
