"""`SecretRef`: a reference to a secret, in place of the value of a secret option."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Self

from cloudrun_jobs.exceptions import InvalidSecret

PREFIX = "secret:"  # Of a reference among container arguments: --token=secret:partner-token:3
PATTERN = r"([A-Za-z0-9_-]{1,255})(?::(latest|[1-9][0-9]{0,9}))?"


@dataclass(frozen=True, slots=True)
class SecretRef:
    """A reference to a secret. In the container, the secret option of a job gets the secret's value.

        Command().delay(token=SecretRef("partner-token:3"))

    `reference` is the secret's id, and optionally ":" and a version: a number, or "latest", the default.

    Raises `InvalidSecret` if it has another form.
    """

    reference: str

    def __post_init__(self) -> None:
        if not isinstance(self.reference, str) or not re.fullmatch(PATTERN, self.reference):
            message = "SecretRef: expected a name of letters, digits, '-' and '_', and a version or none."
            raise InvalidSecret(message, hint="Write 'partner-token' or 'partner-token:3'.")

    @property
    def name(self) -> str:
        """The id of the secret."""
        return self.reference.partition(":")[0]

    @property
    def version(self) -> str:
        """The number of the version, or "latest"."""
        return self.reference.partition(":")[2] or "latest"

    def encode(self) -> str:
        """Return the reference as a container argument."""
        return PREFIX + self.reference

    __str__ = encode  # `call_command()` formats values.

    @classmethod
    def decode(cls, argument: str) -> Self | None:
        """Return the reference in a container argument; None if it holds none."""
        reference = argument.removeprefix(PREFIX)
        return cls(reference) if reference != argument and re.fullmatch(PATTERN, reference) else None
