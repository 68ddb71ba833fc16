"""A token that a job refreshes: the partner's API, its client, and the jobs."""

from __future__ import annotations

SECRET = "partner-token"  # The name in Secret Manager.
