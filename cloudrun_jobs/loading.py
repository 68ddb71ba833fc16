"""Load a class by its dotted path and check its options: the one loader for every kind of backend."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from functools import cache
from typing import Any

from django.utils.module_loading import import_string

from cloudrun_jobs.exceptions import InvalidSettings
from cloudrun_jobs.suggestions import did_you_mean


def import_backend(path: object, base: type, *, setting: str) -> Any:
    """Return the subclass of `base` at a dotted path. Raises `InvalidSettings`, naming the setting."""
    try:
        backend = import_string(path)  # type: ignore[arg-type]  # any other type raises AttributeError
    except (ImportError, AttributeError) as error:
        hint = "Install the extra: pip install 'django-cloudrun-jobs[redis]'." if "'redis'" in str(error) else ""
        raise InvalidSettings(f"{setting}: {error}.", hint=hint) from error
    if not (isinstance(backend, type) and issubclass(backend, base)):
        raise InvalidSettings(f"{setting}: {path} is not a subclass of {base.__name__}.")
    return backend


def check_options(backend: type, options: object, *, setting: str) -> Mapping[str, Any]:
    """Return the options. Raises `InvalidSettings` for unknown options, and for required ones that are missing."""
    if not isinstance(options, Mapping):
        raise InvalidSettings(f"{setting}: expected a dictionary, got {options!r}.")
    parameters = _parameters(backend)
    for option in options:
        if option not in parameters:
            hint = did_you_mean(str(option), parameters)
            raise InvalidSettings(f"{setting}: {backend.__name__} has no option {option!r}.", hint=hint)
    for name, parameter in parameters.items():
        if parameter.default is parameter.empty and name not in options:
            raise InvalidSettings(f"{setting}: {backend.__name__} needs the option {name!r}.")
    return options


@cache
def _parameters(backend: type) -> dict[str, inspect.Parameter]:
    """Return the keyword-only parameters of a class and of the classes it passes its other options on to."""
    return {
        name: parameter
        for cls in backend.__mro__
        if "__init__" in vars(cls)
        for name, parameter in inspect.signature(cls).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY
    }
