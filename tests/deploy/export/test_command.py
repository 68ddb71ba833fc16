"""`manage.py cloudrun_jobs export`: what it refuses, and what it tells beside what it writes."""

from __future__ import annotations

import re
import sys
from io import StringIO

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from pytest_django import Settings

from tests.deploy.export.conftest import Export, declare

FORMS = pytest.mark.parametrize("form", ["terraform", "gcloud", "yaml"])


def told(*args: str) -> str:
    stderr = StringIO()
    call_command("cloudrun_jobs", "export", *args, stdout=StringIO(), stderr=stderr, skip_checks=True)
    return stderr.getvalue()


@FORMS
def test_without_an_image(export: Export, form: str) -> None:
    """A job cannot be without one."""
    with pytest.raises(CommandError, match=re.escape("echo: a job needs an image. Add --image IMAGE.")) as refusal:
        export(form)

    assert refusal.value.returncode == 2


def test_an_unknown_command(export: Export) -> None:
    """The likely one is named."""
    with pytest.raises(CommandError, match=re.escape("'ekho' is not a Cloud Run job. Did you mean 'echo'?")):
        export("yaml", commands=("--command", "ekho"))


def test_here_is_no_cloud(export: Export, settings: Settings) -> None:
    """The environment of tests has nothing to export."""
    settings.CLOUDRUN_JOBS = {"ENVIRONMENT": "test"}

    with pytest.raises(CommandError, match="The environment 'test' has no jobs"):
        export("yaml")


@pytest.mark.usefixtures("options")
def test_secrets_of_a_job_without_an_account(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody can be granted them by name, and that is told where it is not in the way of the document."""
    declare(monkeypatch, secrets={"KEY": "partner-key"})

    words = told("--format", "terraform", "--image", "app:1", "--command", "echo")
    assert (
        words
        == "echo: names no service_account, so no account gets access to its secrets.\n"
    )


@pytest.mark.usefixtures("options")
def test_yaml_is_without_schedules() -> None:
    """Whoever wants them is told which format has them."""
    words = told("--format", "yaml", "--image", "app:1", "--command", "nightly")

    assert words == "YAML contains only the jobs. Use --format gcloud for the schedules.\n"


def test_nothing_of_googles_is_imported(export: Export, monkeypatch: pytest.MonkeyPatch) -> None:
    """To write what is declared, no client is needed."""
    for name in [name for name in sys.modules if name.startswith("google")]:
        monkeypatch.setitem(sys.modules, name, None)

    assert export("terraform", "--image", "app:1")


def test_yaml_without_pyyaml_is_refused(export: Export, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the extra to install; the other formats do not need it."""
    monkeypatch.setitem(sys.modules, "yaml", None)

    with pytest.raises(CommandError, match=re.escape('pip install "django-cloudrun-jobs[yaml]"')) as refusal:
        export("yaml", "--image", "app:1")

    assert refusal.value.returncode == 2
    assert export("gcloud", "--image", "app:1")
