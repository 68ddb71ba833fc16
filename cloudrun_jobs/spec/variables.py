"""Validators of a job's environment variables: plain ones, and those from Secret Manager."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from cloudrun_jobs import environ
from cloudrun_jobs.exceptions import DeclarationError, Verbatim

if TYPE_CHECKING:
    from cloudrun_jobs.spec.job import JobSpec

MAX_VARIABLES = 1000
MAX_VARIABLE_SIZE = 32_768  # bytes


def check_variables(spec: JobSpec) -> Iterator[DeclarationError]:
    for attribute in ("env_vars", "secrets"):
        value = getattr(spec, attribute)
        # Never show a value: it may be a secret in the wrong place.
        if not isinstance(value, Mapping):
            yield DeclarationError(attribute=attribute, expected="a dictionary", got=_type_name(value))
            return
        for name in value:
            if not isinstance(value[name], str):
                where = f"{attribute}[{name!r}]"
                yield DeclarationError(attribute=where, expected="text", got=_type_name(value[name]))
                return
        yield from _check_variable_names(attribute, value)
    yield from _check_variables_together(spec)


def _check_variable_names(attribute: str, variables: Mapping[str, str]) -> Iterator[DeclarationError]:
    for name, value in variables.items():
        if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            expected = "letters, digits and underscores as name"
            yield DeclarationError(attribute=attribute, expected=expected, got=name)
        elif re.match(r"CLOUD_RUN_|K_|X_GOOGLE_|PORT$", name) or name in environ.EXECUTION_VARIABLES:
            expected = "a name that neither Cloud Run nor this package reserves"
            yield DeclarationError(attribute=attribute, expected=expected, got=name)
        elif (size := len(value.encode("utf-8", "surrogatepass"))) > MAX_VARIABLE_SIZE:
            yield DeclarationError(attribute=f"{attribute}[{name!r}]", expected="at most 32768 bytes", got=size)
        elif attribute == "secrets" and not re.fullmatch(r"[\w-]{1,255}(:(latest|[0-9]+))?", value):
            expected = "the name of a secret in Secret Manager, such as 'api-key' or 'api-key:3'"
            got = Verbatim("something else")
            yield DeclarationError(attribute=f"secrets[{name!r}]", expected=expected, got=got)


def _type_name(value: object) -> Verbatim:
    return Verbatim(type(value).__name__)


def _check_variables_together(spec: JobSpec) -> Iterator[DeclarationError]:
    if both := sorted(spec.env_vars.keys() & spec.secrets.keys(), key=str):
        yield DeclarationError(attribute="env_vars", expected="no name that is in secrets too", got=both)
    if (count := len(spec.env_vars) + len(spec.secrets)) >= MAX_VARIABLES:
        expected = f"fewer than {MAX_VARIABLES} variables together with secrets"
        yield DeclarationError(attribute="env_vars", expected=expected, got=count)
