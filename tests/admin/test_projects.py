"""Projects with other users, another skin or no admin, each in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec

import pytest

UNFOLD = pytest.param("unfold", marks=pytest.mark.skipif(not find_spec("unfold"), reason="needs django-unfold"))
LOADED = """
import sys, django
from django.conf import settings
settings.configure(INSTALLED_APPS=[*sys.argv[1:], "django.contrib.contenttypes", "cloudrun_jobs"])
django.setup()
print(*sys.modules)
"""


def run(*command: str) -> str:
    return subprocess.run([sys.executable, *command], stdout=subprocess.PIPE, text=True, check=True).stdout


@pytest.mark.parametrize("skin", ["", UNFOLD])
def test_project_with_users_of_its_own(skin: str) -> None:
    """Users who sign in with their address can do everything, in Django's admin and in django-unfold's."""
    found = json.loads(run("-m", "tests.admin.project", *filter(None, [skin])))

    assert {*found["statuses"].values()} == {200}
    assert (found["has_heading"], found["status"], found["history"]) == (True, "cancelled", True)
    assert found["requesters"] == ["mina@example.com"]


def test_project_without_the_admin() -> None:
    """A project without the admin imports none of its pages."""
    loaded = run("-c", LOADED).split()

    assert not [name for name in loaded if name.startswith(("cloudrun_jobs.admin", "cloudrun_jobs.dashboard"))]


def test_project_with_the_admin() -> None:
    """The admin imports the pages with its first request, and Google's clients not even then."""
    loaded = run("-c", LOADED, "django.contrib.admin", "django.contrib.auth").split()

    assert "cloudrun_jobs.admin" in loaded
    assert not {"google", "cloudrun_jobs.http", "cloudrun_jobs.dashboard.views"} & {*loaded}
