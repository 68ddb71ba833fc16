"""Settings of the servers under test: the HTTP API behind a middleware that compresses."""

from __future__ import annotations

import json
import os
from hashlib import sha256

from tests.settings import *  # noqa: F403
from tests.settings import MIDDLEWARE

ALLOWED_HOSTS = ["127.0.0.1"]
DATABASES = {"default": json.loads(os.environ["SERVER_DATABASE"])}
MIDDLEWARE = ["django.middleware.gzip.GZipMiddleware", *MIDDLEWARE]
ROOT_URLCONF = "tests.http_api.urls"
TOKEN = {"name": "reader", "header": "x-token", "sha256": sha256(b"the token").hexdigest(), "scopes": ["read"]}
CLOUDRUN_JOBS = {"ENVIRONMENT": "test", "HTTP": {"TOKENS": [TOKEN]}}  # type: ignore[dict-item]
