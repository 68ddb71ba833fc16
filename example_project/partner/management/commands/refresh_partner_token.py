"""Refresh the token of the partner's API, every twelve hours."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.core.management.base import CommandError

from cloudrun_jobs import CloudRunJobs, secrets
from partner import SECRET, api

KEPT_VERSIONS = 2  # The new token, and the one before, to look at after a failure.


class Command(CloudRunJobs):
    help = "Refresh the token of the partner's API"
    schedule = "0 */12 * * *"
    time_zone = "Asia/Tokyo"
    # Three attempts, each of which may hang or wait for the partner, take at most five minutes.
    timeout = 600
    # The client repeats requests itself. One more attempt of the task is for what ends the container in the midst.
    max_retries = 1

    @property
    def is_enabled(self) -> bool:
        return bool(_url())

    def run(self, *args: Any, **options: Any) -> dict[str, int]:
        number = secrets.latest_version(SECRET)
        token = secrets.read(f"{SECRET}:{number}")
        try:
            # If the process ends before the update, the next run reads the same version and sends the same key,
            # and the partner returns the same new token.
            token = api.refresh(_url(), token, key=f"{SECRET}-{number}")
        except api.PartnerError as error:
            raise CommandError(f"{error} Version {number} of {SECRET} stays.") from error
        version = secrets.update(SECRET, token, expected=number, keep=KEPT_VERSIONS)
        self.stdout.write(self.style.SUCCESS(f"{SECRET} has version {version}."))
        return {"version": version}


def _url() -> str:
    return getattr(settings, "PARTNER_URL", "")
