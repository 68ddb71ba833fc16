"""What jobs declare, written for other tools than the sync. Nothing of Google's is imported."""

from __future__ import annotations

from collections.abc import Callable

from cloudrun_jobs.deploy.export import gcloud, terraform, yaml
from cloudrun_jobs.deploy.export.declarations import Declarations

__all__ = ["FORMATS", "Declarations"]

FORMATS: dict[str, Callable[[Declarations], str]] = {
    "terraform": terraform.text,
    "gcloud": gcloud.text,
    "yaml": yaml.text,
}
