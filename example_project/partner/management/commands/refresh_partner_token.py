"""Refresh the token of the partner's API, every twelve hours."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.core.management.base import CommandError

from cloudrun_jobs import CloudRunJobs, secrets
from cloudrun_jobs.exceptions import SecretNotFound
from partner import SECRET, api

KEPT_VERSIONS = 2  # The new token and the previous one, for diagnosis after a failure.


class Command(CloudRunJobs):
    help = "Refresh the token of the partner's API"
    schedule = "0 */12 * * *"
    time_zone = "Asia/Tokyo"
    # Three attempts take at most five minutes, even if each of them hangs or waits for Retry-After.
    timeout = 600
    # The client retries requests itself. One more attempt of the task repeats a run whose container was killed.
    max_retries = 1

    @property
    def is_enabled(self) -> bool:
        return bool(_url())

    def run(self, *args: Any, **options: Any) -> dict[str, int]:
        try:
            number = secrets.latest_version(SECRET)
        except SecretNotFound as error:
            raise CommandError(f"{error} Save the first token: manage.py save_partner_token") from error
        token = secrets.read(f"{SECRET}:{number}")
        try:
            # If the process ends before the update, the next run reads the same version and sends the same key.
            # The partner then returns the same new token.
            token = api.refresh(_url(), token, key=f"{SECRET}-{number}")
        except api.PartnerError as error:
            raise CommandError(f"{error} Version {number} of {SECRET} stays in force.") from error
        version = secrets.update(SECRET, token, expected=number, keep=KEPT_VERSIONS)
        self.stdout.write(self.style.SUCCESS(f"{SECRET} has version {version}."))
        return {"version": version}


def _url() -> str:
    return getattr(settings, "PARTNER_URL", "")
