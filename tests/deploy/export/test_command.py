"""`manage.py cloudrun_jobs export`: errors, and messages on stderr."""

from __future__ import annotations

import re
import sys
from io import StringIO
from typing import Any

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from pytest_django import Settings

from tests.deploy.export.conftest import Export, declare

FORMS = pytest.mark.parametrize("form", ["terraform", "gcloud", "yaml"])


def messages(*args: str) -> str:
    stderr = StringIO()
    call_command("cloudrun_jobs", "export", *args, stdout=StringIO(), stderr=stderr, skip_checks=True)
    return stderr.getvalue()


@FORMS
def test_missing_image_is_an_error(export: Export, form: str) -> None:
    """Every job needs an image."""
    with pytest.raises(CommandError, match=re.escape("echo: a job needs an image. Add --image IMAGE.")) as refusal:
        export(form)

    assert refusal.value.returncode == 2


def test_unknown_command_is_rejected(export: Export) -> None:
    """The error suggests a similar name."""
    with pytest.raises(CommandError, match=re.escape("'ekho' is not a Cloud Run job. Did you mean 'echo'?")):
        export("yaml", commands=("--command", "ekho"))


def test_export_is_refused_inline(export: Export, settings: Settings) -> None:
    """The environment "test" has nothing to export."""
    settings.CLOUDRUN_JOBS = {"ENVIRONMENT": "test"}

    with pytest.raises(CommandError, match="The environment 'test' has no jobs"):
        export("yaml")


@pytest.mark.usefixtures("options")
def test_secrets_without_a_service_account_are_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    """A message on stderr says that no account gets access."""
    declare(monkeypatch, secrets={"KEY": "partner-key"})

    text = messages("--format", "terraform", "--image", "app:1", "--command", "echo")
    assert text == "echo: names no service_account, so no account gets access to its secrets.\n"


@pytest.mark.usefixtures("options")
def test_yaml_has_no_schedules() -> None:
    """A message on stderr names the format that has them."""
    text = messages("--format", "yaml", "--image", "app:1", "--command", "nightly")

    assert text == "YAML contains only the jobs. Use --format gcloud for the schedules.\n"


def test_google_clients_are_not_imported(export: Export, monkeypatch: pytest.MonkeyPatch) -> None:
    """An export needs no client."""
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


def test_worker_pools_are_for_terraform(settings: Settings, options: dict[str, Any]) -> None:
    """A message on stderr names the format that has them."""
    entry = {"BACKEND": "cloudrun_jobs.backends.celery.CeleryBackend"}
    settings.CLOUDRUN_JOBS = {**settings.CLOUDRUN_JOBS, "BACKENDS": {"celery": entry}}

    text = messages("--format", "gcloud", "--image", "app:1")
    assert text == "The output has no worker pools. Use --format terraform for those of Celery.\n"
