"""Settings of the example: open on a development machine, closed everywhere else.

A development machine is one where `CLOUDRUN_JOBS_ENVIRONMENT` is "local" or not set, and `EXAMPLE_DEBUG` is not 0.
"""

from __future__ import annotations

import os
from hashlib import sha256
from pathlib import Path

from django.core.exceptions import ImproperlyConfigured

BASE_DIR = Path(__file__).resolve().parent.parent
ENVIRONMENT = os.environ.get("CLOUDRUN_JOBS_ENVIRONMENT", "local")

DEBUG = os.environ.get("EXAMPLE_DEBUG", "1" if ENVIRONMENT == "local" else "0") == "1"
LOCAL_SECRET_KEY = "django-insecure-for-this-machine-alone: it is public"
SECRET_KEY = os.environ.get("EXAMPLE_SECRET_KEY") or (LOCAL_SECRET_KEY if DEBUG else "")
if not SECRET_KEY:
    raise ImproperlyConfigured("Outside DEBUG the variable EXAMPLE_SECRET_KEY is required.")

# If empty, Django accepts the names of this machine, and only in DEBUG.
ALLOWED_HOSTS = list(filter(None, os.environ.get("EXAMPLE_ALLOWED_HOSTS", "").split(",")))

# The token of the ingest API, and the URL of this service, which Cloud Scheduler calls with the ID tokens of an
# account. Without either, the HTTP API accepts only sessions.
INGEST_TOKEN = os.environ.get("EXAMPLE_INGEST_TOKEN", "")
SERVICE_URL = os.environ.get("EXAMPLE_SERVICE_URL", "")
SCHEDULER_ACCOUNT = os.environ.get("EXAMPLE_SCHEDULER_ACCOUNT", "")

# The partner's API. Without its URL, the job that refreshes its token has no schedule.
PARTNER_URL = os.environ.get("EXAMPLE_PARTNER_URL", "")

# With a broker, ingest jobs run on Celery workers; with DISABLE_CELERY=true, in the web service.
# With Redis, locks are in Redis; with DISABLE_REDIS=true, in the database.
REDIS_URL = os.environ.get("REDIS_URL", "")
CELERY_BROKER_URL = os.environ.get("CELERY_BROKER_URL") or REDIS_URL
CELERY_RESULT_BACKEND = os.environ.get("CELERY_RESULT_BACKEND") or CELERY_BROKER_URL
# The seconds that a worker with REMAP_SIGTERM=SIGQUIT waits for its tasks at SIGTERM, before it requeues them.
CELERY_WORKER_SOFT_SHUTDOWN_TIMEOUT = float(os.environ.get("CELERY_WORKER_SOFT_SHUTDOWN_TIMEOUT", "0"))

WITH_BROKER = {
    "BACKENDS": {
        "celery": {
            "BACKEND": "cloudrun_jobs.backends.celery.CeleryBackend",
            "OPTIONS": {
                "app": "example.celery_app.app",
                "queues": ["ingest", "ai_analysis", "backtest", "market_data", "notifications"],
            },
        }
    },
    "ROUTES": {"run_daily_ingest": "celery"},
    "RECONCILE": {"schedule": "* * * * *", "backend": "celery"},
}
WITH_REDIS = {"LOCKS": {"BACKEND": "cloudrun_jobs.locks.redis.RedisLocks", "OPTIONS": {"url": REDIS_URL}}}

CLOUDRUN_JOBS = {
    "ENVIRONMENT": ENVIRONMENT,
    "RECONCILE": {"schedule": "*/5 * * * *"},
    # On a development machine, secrets are in a file; elsewhere in Secret Manager.
    **({"SECRETS": BASE_DIR / "secrets.json"} if ENVIRONMENT == "local" else {}),
    **(WITH_BROKER if CELERY_BROKER_URL else {}),
    **(WITH_REDIS if REDIS_URL and os.environ.get("DISABLE_REDIS") != "true" else {}),
    "HTTP": {
        # The dashboard, for members of staff.
        "SESSION": True,
        # A deployment checks the health of the new revision before it gets traffic.
        "HEALTH": "public",
        "TOKENS": [
            {
                "name": "ingest",
                "header": "x-ingest-token",
                "sha256": sha256(INGEST_TOKEN.encode()).hexdigest(),
                "scopes": ["read", "run"],
                "commands": ["run_daily_ingest", "job"],
            }
        ]
        if INGEST_TOKEN
        else [],
        **(
            {"OIDC": {"audience": SERVICE_URL, "emails": [SCHEDULER_ACCOUNT], "scopes": ["read"]}}
            if SERVICE_URL
            else {}
        ),
    },
}

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.messages",
    "django.contrib.sessions",
    "django.contrib.staticfiles",
    "cloudrun_jobs",
    "batch",
    "export",
    "ingest",
    "partner",
    "rates",
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.locale.LocaleMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]
ROOT_URLCONF = "example.urls"
WSGI_APPLICATION = "example.wsgi.application"

# Cloud SQL for PostgreSQL, by its socket or its address; without it, SQLite, which containers cannot share.
POSTGRES_HOST = os.environ.get("EXAMPLE_POSTGRES_HOST", "")

DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.postgresql",
        "HOST": POSTGRES_HOST,
        "NAME": os.environ.get("EXAMPLE_POSTGRES_DATABASE", "example"),
        "USER": os.environ.get("EXAMPLE_POSTGRES_USER", "example"),
        "PASSWORD": os.environ.get("EXAMPLE_POSTGRES_PASSWORD", ""),
    }
    if POSTGRES_HOST
    else {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": os.environ.get("EXAMPLE_DATABASE", BASE_DIR / "db.sqlite3"),
        # A transaction that reads first and writes later fails if another one writes in between. With IMMEDIATE
        # it takes the write lock when it begins, and waits for it.
        "OPTIONS": {"transaction_mode": "IMMEDIATE", "timeout": 20},
    }
}

AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{validator}"}
    for validator in ("MinimumLengthValidator", "CommonPasswordValidator", "NumericPasswordValidator")
]

LOGIN_URL = "login"

LANGUAGE_CODE = "en-us"
TIME_ZONE = "UTC"
USE_TZ = True

STATIC_URL = "static/"
STATIC_ROOT = BASE_DIR / "staticfiles"  # Written by collectstatic; nginx serves it in the container.

# Cloud Run terminates TLS and sets this header; it overwrites the one of a browser.
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = not DEBUG
# Cloud Run redirects from http. Strict transport security is a decision of the domain's owner.
SILENCED_SYSTEM_CHECKS = ["security.W004", "security.W008"]

LOG_HANDLER = (
    "cloud" if os.environ.keys() & {"CLOUD_RUN_JOB", "K_SERVICE", "CLOUD_RUN_WORKER_POOL"} else "terminal"
)
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "filters": {"job": {"()": "cloudrun_jobs.logs.JobContextFilter"}},
    "formatters": {
        "plain": {"format": "%(levelname)s %(name)s: %(message)s"},
        "json": {"()": "cloudrun_jobs.logs.JsonFormatter"},
    },
    "handlers": {
        "terminal": {"class": "logging.StreamHandler", "formatter": "plain"},
        # Entries of Cloud Logging.
        "cloud": {
            "class": "logging.StreamHandler",
            "stream": "ext://sys.stdout",
            "filters": ["job"],
            "formatter": "json",
        },
    },
    "loggers": {
        "cloudrun_jobs": {"handlers": [LOG_HANDLER], "level": "INFO", "propagate": False},
        "export": {"handlers": [LOG_HANDLER], "level": "INFO"},
    },
}
