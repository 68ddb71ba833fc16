"""Settings of a web server that a test starts: what differs is in the environment, as JSON."""

from __future__ import annotations

import json
import os

from tests.settings import *  # noqa: F403

ALLOWED_HOSTS = ["127.0.0.1"]
ROOT_URLCONF = "tests.http_api.live_urls"
INSTALLED_APPS = [app for app in INSTALLED_APPS if app != "rates"]  # noqa: F405
globals().update(json.loads(os.environ["TESTS_LIVE_SETTINGS"]))
