"""Settings of callers and containers, with the test's database and emulator from the environment."""

from __future__ import annotations

import json
import os
import time

given = json.loads(os.environ["CRASH_SETTINGS"])

# Simulates a machine whose clock is wrong.
true_time, ahead = time.time, given.get("ahead", 0)
time.time = lambda: true_time() + ahead
time.time_ns = lambda: int(time.time() * 1e9)

SECRET_KEY = "only for tests"
INSTALLED_APPS = ["cloudrun_jobs", "tests.faults.project"]
DATABASES = {"default": given["database"]}
USE_TZ = True
CLOUDRUN_JOBS = {
    "ENVIRONMENT": "production",
    "PROJECT": "acme",
    "REGION": "europe-west4",
    "OPTIONS": {
        "endpoint": given["endpoint"],
        "runs_per_minute": 10_000,
        "send_deadline": float(os.environ.get("SEND_DEADLINE", "20")),
        "service_account": "app-jobs@acme.iam.gserviceaccount.com",
        **given.get("options", {}),
    },
}
