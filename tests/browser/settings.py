"""Settings of the web server that the browser opens, and of its jobs on the emulator."""

from __future__ import annotations

import os

from django.utils.csp import CSP

from tests.settings import *  # noqa: F403
from tests.settings import INSTALLED_APPS, MIDDLEWARE

ALLOWED_HOSTS = ["127.0.0.1"]
ROOT_URLCONF = "tests.browser.urls"
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]  # Fast.
CLOUDRUN_JOBS = {"HTTP": {"SESSION": True}}  # type: ignore[dict-item]

if os.environ.get("BROWSER_UNFOLD"):  # Its pages have inline scripts.
    INSTALLED_APPS = ["unfold", *INSTALLED_APPS]
else:
    MIDDLEWARE = ["django.middleware.csp.ContentSecurityPolicyMiddleware", *MIDDLEWARE]
    SECURE_CSP = {"default-src": [CSP.SELF]}
