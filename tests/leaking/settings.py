"""Settings with the job, and a recipe of docs/logging.md."""

from __future__ import annotations

from tests.logs.recipes import recipe
from tests.settings import *  # noqa: F403
from tests.settings import INSTALLED_APPS as JOBS

INSTALLED_APPS = [*JOBS, "tests.leaking"]
LOGGING = recipe("json")
