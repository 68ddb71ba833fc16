"""Look up the values of secrets that a job's environment refers to."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cloudrun_jobs.emulator import names

if TYPE_CHECKING:
    from collections.abc import Mapping

    from google.cloud import run_v2

ENV_PREFIX = "CLOUDRUN_EMULATOR_SECRET_"


class MissingSecret(LookupError):
    """The environment of a job refers to a secret that does not exist. The text is Google's."""

    def __init__(self, message: str, *, hint: str) -> None:
        super().__init__(message)
        self.hint = hint


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
        name = ENV_PREFIX + secret.upper().replace("-", "_")
        if name in os.environ:
            return os.environ[name]
        project = names.location_of(resource).project
        message = f"Secret projects/{project}/secrets/{secret}/versions/{version} was not found"
        hint = (
            f"The emulator has no value for version {version!r} of the secret {secret!r}. Start it with "
            f"--secrets FILE, a JSON object such as {json.dumps({secret: 'VALUE'})}, or with the variable {name}."
        )
        raise MissingSecret(message, hint=hint)
