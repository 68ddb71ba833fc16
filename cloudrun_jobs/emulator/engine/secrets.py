"""Look up the values of secrets that a job's environment refers to."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cloudrun_jobs.emulator import names

if TYPE_CHECKING:
    from collections.abc import Mapping

    from google.cloud import run_v2

ENV_PREFIX = "CLOUDRUN_EMULATOR_SECRET_"


class MissingSecret(LookupError):
    """The environment of a job refers to a secret that does not exist."""


@dataclass(frozen=True, slots=True)
class Secrets:
    """Secret values by id or ``id:version``, with the emulator's environment as the fallback."""

    values: Mapping[str, str]

    def value(self, variable: run_v2.EnvVar, resource: str) -> str:
        """Return the value of a variable, looked up if it refers to a secret."""
        reference = variable.value_source.secret_key_ref
        if not reference.secret:
            return variable.value
        secret, version = names.short(reference.secret), reference.version or "latest"
        for key in (f"{secret}:{version}", secret):
            if key in self.values:
                return self.values[key]
        try:
            return os.environ[ENV_PREFIX + secret.upper().replace("-", "_")]
        except KeyError:
            project = names.location_of(resource).project
            message = f"Secret projects/{project}/secrets/{secret}/versions/{version} was not found"
            raise MissingSecret(message) from None
