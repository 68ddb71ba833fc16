"""Settings of the processes that tests start: the suite's, with the test's database."""

from __future__ import annotations

import json
import os

from tests.servers import sql
from tests.settings import *  # noqa: F403

database = json.loads(os.environ["RUNS_DATABASE"])
if database["ENGINE"].endswith("mysql"):
    database |= sql.mariadb_settings(database["PORT"])
DATABASES = {"default": database}
