"""Settings of a container, with the test's database from the environment."""

from __future__ import annotations

import json
import os

from tests.servers import sql

database = json.loads(os.environ["RUNS_DATABASE"])
if database["ENGINE"].endswith("mysql"):
    sql.mariadb_settings(0)  # Installs PyMySQL under the name of mysqlclient.

SECRET_KEY = "only for tests"
INSTALLED_APPS = ["cloudrun_jobs", "tests.jobs"]
DATABASES = {"default": database}
USE_TZ = True
CLOUDRUN_JOBS = {"ENVIRONMENT": os.environ.get("RUNS_ENVIRONMENT", "production")}
