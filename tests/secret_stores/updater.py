"""Update a secret in a file until a number of updates has won; print their numbers and labels."""

from __future__ import annotations

import json
import sys

from django.conf import settings

path, label, wins = sys.argv[1:]
settings.configure(CLOUDRUN_JOBS={"ENVIRONMENT": "local", "SECRETS": path})

from cloudrun_jobs import secrets  # noqa: E402  (after the settings)
from cloudrun_jobs.exceptions import SecretConflict  # noqa: E402

written: dict[int, str] = {}
while len(written) < int(wins):
    number = secrets.latest_version("token")
    before = secrets.read(f"token:{number}")
    try:
        written[secrets.update("token", f"{before[-20:]}{label}", expected=number)] = label
    except SecretConflict:
        continue
sys.stdout.write(json.dumps(written))
