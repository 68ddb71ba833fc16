"""The settings of a worker: the parent's databases and locks, from its environment."""

from __future__ import annotations

import json
import os
import time

from tests.servers import sql

given = json.loads(os.environ["WORKER_SETTINGS"])
if any(database.get("ENGINE", "").endswith("mysql") for database in given["DATABASES"].values()):
    sql.mariadb_settings(0)

# A worker whose clock is wrong.
true_time, ahead = time.time, float(os.environ.get("WORKER_CLOCK_AHEAD", "0"))
time.time = lambda: true_time() + ahead
time.time_ns = lambda: int(time.time() * 1e9)

SECRET_KEY = "only for tests"
INSTALLED_APPS = ["cloudrun_jobs", "tests.locks.project"]
DATABASES = given["DATABASES"]
DATABASE_ROUTERS = given.get("DATABASE_ROUTERS", [])
USE_TZ = True
CLOUDRUN_JOBS = {
    "ENVIRONMENT": "staging",
    "PROJECT": "acme",
    "REGION": "asia-northeast1",
    "LOCKS": given["LOCKS"],
}
