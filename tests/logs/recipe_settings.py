"""Settings of a container with one of the recipes of docs/logging.md."""

from __future__ import annotations

import os

from tests.logs.recipes import recipe
from tests.settings import *  # noqa: F403

LOGGING = recipe(os.environ["RECIPE"])
