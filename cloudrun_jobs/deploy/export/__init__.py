"""Write the declared jobs and schedules for other tools. Google's clients are not imported."""

from __future__ import annotations

from collections.abc import Callable

from cloudrun_jobs.deploy.export import gcloud, knative, terraform
from cloudrun_jobs.deploy.export.declarations import Declarations

__all__ = ["FORMATS", "Declarations"]

FORMATS: dict[str, Callable[[Declarations], str]] = {
    "terraform": terraform.text,
    "gcloud": gcloud.text,
    "yaml": knative.text,
}
