"""A project with users of its own: opens the admin, and prints what it shows as JSON.

python -m tests.admin.project [unfold]
"""

from __future__ import annotations

import json
import re
import sys
from io import StringIO
from typing import Any

import django
from django.conf import settings

from tests.settings import TEMPLATES

SKIN = sys.argv[1:2]
settings.configure(
    SECRET_KEY="only for tests",
    ALLOWED_HOSTS=["*"],
    INSTALLED_APPS=[
        *SKIN,
        "django.contrib.admin",
        "django.contrib.auth",
        "django.contrib.contenttypes",
        "django.contrib.messages",
        "django.contrib.sessions",
        "django.contrib.staticfiles",
        "tests.admin.accounts",
        "cloudrun_jobs",
        "tests.jobs",
    ],
    AUTH_USER_MODEL="accounts.Account",
    MIDDLEWARE=[
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.middleware.locale.LocaleMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
        "django.contrib.messages.middleware.MessageMiddleware",
    ],
    TEMPLATES=TEMPLATES,
    STATIC_URL="static/",
    ROOT_URLCONF="tests.admin.project_urls",
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
    # Tables without the history of the migrations, which takes seconds.
    MIGRATION_MODULES=dict.fromkeys(("admin", "auth", "cloudrun_jobs", "contenttypes", "sessions")),
    CLOUDRUN_JOBS={"ENVIRONMENT": "test"},
    LANGUAGE_CODE="ja",
    USE_TZ=True,
)
django.setup()

from django.contrib.auth import get_user_model  # noqa: E402
from django.core.management import call_command  # noqa: E402
from django.test import Client  # noqa: E402

from cloudrun_jobs.models import JobRun  # noqa: E402

RUNS, JOBS = "/admin/cloudrun_jobs/jobrun/", "/admin/cloudrun_jobs/job/"


def main() -> None:
    call_command("migrate", run_syncdb=True, verbosity=0)
    call_command("check", stdout=StringIO())
    client = Client()
    users: Any = get_user_model().objects
    client.force_login(users.create_superuser(email="mina@example.com"))
    fields = {"argv": ["echo"], "environment": "test", "trigger": "delay", "status": "pending"}
    run = JobRun.objects.create(command="echo", **fields)
    pages = [
        RUNS,
        f"{RUNS}?q=echo&job=echo&since=2026-01-01",
        f"{RUNS}{run.pk}/change/",
        f"{RUNS}{run.pk}/history/",
    ]
    pages += [JOBS, f"{JOBS}echo/change/", f"{JOBS}echo/history/", "/admin/", "/admin/cloudrun_jobs/"]
    confirmation = _act(client, "rerun_runs", run)
    key = re.search('name="key" value="(.*?)"', confirmation)
    assert key is not None
    for _ in range(2):
        client.post(f"{RUNS}rerun-selected/", {"key": key[1], "run": run.pk})
    _act(client, "cancel_runs", run)
    run.refresh_from_db()
    found = {
        "statuses": {path.replace(str(run.pk), "RUN"): client.get(path).status_code for path in pages},
        "has_heading": "<h1" in client.get(f"{JOBS}echo/change/").content.decode(),
        "requesters": [*JobRun.objects.exclude(pk=run.pk).values_list("requested_by", flat=True)],
        "status": run.status,
        "history": "mina@example.com" in client.get(f"{RUNS}{run.pk}/history/").content.decode(),
    }
    sys.stdout.write(json.dumps(found))


def _act(client: Client, action: str, run: JobRun) -> Any:
    values = {"action": action, "_selected_action": run.pk, "index": 0}
    return client.post(RUNS, values, follow=True).content.decode()


if __name__ == "__main__":
    main()
